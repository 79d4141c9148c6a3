//! A PAM session: what this machine's owner set up for every login (limits, variables, records).
//!
//! libpam is loaded when it is needed, so that a machine without it is served as well. Only the session is PAM's:
//! who may come in was decided by the endpoint, and accounts are not asked about, since an expired password or an
//! `/etc/nologin` must not lock out whoever wants to repair a machine.
//!
//! PAM's modules are foreign code. This runs in a process of its own (`login_process`), without secrets or threads.

use std::{
    ffi::{CStr, CString, OsString, c_char, c_int, c_void},
    io::Write,
    os::unix::ffi::OsStringExt,
    ptr,
};

use nix::libc;

use super::login_process::Request;

const PAM_SUCCESS: c_int = 0;
const PAM_BUF_ERR: c_int = 5;
const PAM_CONV_ERR: c_int = 19;
const PAM_TTY: c_int = 3;
const PAM_RUSER: c_int = 8;
const PAM_ESTABLISH_CRED: c_int = 2;
const PAM_DELETE_CRED: c_int = 4;
const PAM_ERROR_MSG: c_int = 3;
const PAM_TEXT_INFO: c_int = 4;
/// As many messages at once as libpam gives.
const MAX_MESSAGES: usize = 32;
/// What is shown of one message. Nobody reads the terminal yet, which takes some tens of kilobytes.
const MAX_TEXT_BYTES: usize = 4096;
/// Variables that are taken from a module.
const MAX_VARIABLES: usize = 512;

/// Why there is no PAM session.
#[derive(Debug, thiserror::Error)]
pub(super) enum PamError {
    #[error("{0:?} holds a NUL")]
    Text(String),
    #[error("this libpam has no {0}")]
    Symbol(String),
    #[error("{step} failed: {text}")]
    Step { step: &'static str, text: String },
}

/// `struct pam_handle`, which is libpam's alone.
#[repr(C)]
struct Handle {
    _private: [u8; 0],
}

#[repr(C)]
struct Message {
    style: c_int,
    text: *const c_char,
}

#[repr(C)]
struct Response {
    text: *mut c_char,
    unused: c_int,
}

type Converse = extern "C" fn(c_int, *mut *const Message, *mut *mut Response, *mut c_void) -> c_int;

#[repr(C)]
struct Conversation {
    converse: Converse,
    data: *mut c_void,
}

type Start =
    unsafe extern "C" fn(*const c_char, *const c_char, *const Conversation, *mut *mut Handle) -> c_int;
type SetItem = unsafe extern "C" fn(*mut Handle, c_int, *const c_void) -> c_int;
type WithFlags = unsafe extern "C" fn(*mut Handle, c_int) -> c_int;
type GetVariables = unsafe extern "C" fn(*mut Handle) -> *mut *mut c_char;
type Describe = unsafe extern "C" fn(*mut Handle, c_int) -> *const c_char;

/// The functions of libpam that a session needs. Never unloaded: modules may not survive that.
struct Library {
    start: Start,
    end: WithFlags,
    set_item: SetItem,
    set_credentials: WithFlags,
    open_session: WithFlags,
    close_session: WithFlags,
    get_variables: GetVariables,
    describe: Describe,
}

impl Library {
    /// `None`: this machine has no libpam.
    fn load() -> Result<Option<Self>, PamError> {
        #[expect(unsafe_code, reason = "libpam is loaded at run time")]
        // SAFETY: the name ends with a NUL, and what libpam does when it is loaded is as sound as libpam.
        let library = unsafe { libc::dlopen(c"libpam.so.0".as_ptr(), libc::RTLD_NOW) };
        if library.is_null() {
            return Ok(None);
        }
        #[expect(unsafe_code, reason = "functions of libpam are known by name only")]
        // SAFETY: each type is that of the function of this name in pam_appl(3), which are all function pointers,
        // and libpam stays loaded.
        unsafe {
            Ok(Some(Self {
                start: std::mem::transmute::<*mut c_void, Start>(symbol(library, c"pam_start")?),
                end: std::mem::transmute::<*mut c_void, WithFlags>(symbol(library, c"pam_end")?),
                set_item: std::mem::transmute::<*mut c_void, SetItem>(symbol(library, c"pam_set_item")?),
                set_credentials: std::mem::transmute::<*mut c_void, WithFlags>(symbol(
                    library,
                    c"pam_setcred",
                )?),
                open_session: std::mem::transmute::<*mut c_void, WithFlags>(symbol(
                    library,
                    c"pam_open_session",
                )?),
                close_session: std::mem::transmute::<*mut c_void, WithFlags>(symbol(
                    library,
                    c"pam_close_session",
                )?),
                get_variables: std::mem::transmute::<*mut c_void, GetVariables>(symbol(
                    library,
                    c"pam_getenvlist",
                )?),
                describe: std::mem::transmute::<*mut c_void, Describe>(symbol(library, c"pam_strerror")?),
            }))
        }
    }
}

fn symbol(library: *mut c_void, name: &CStr) -> Result<*mut c_void, PamError> {
    #[expect(unsafe_code, reason = "functions of libpam are known by name only")]
    // SAFETY: the library is loaded, and the name ends with a NUL.
    let found = unsafe { libc::dlsym(library, name.as_ptr()) };
    if found.is_null() {
        return Err(PamError::Symbol(name.to_string_lossy().into_owned()));
    }
    Ok(found)
}

/// An open session of PAM's. It is closed by [`Self::close`], in this process or in a copy of it.
pub(super) struct PamSession {
    library: Library,
    handle: *mut Handle,
    /// libpam keeps a copy, but not of what it points to.
    _conversation: Box<Conversation>,
}

impl PamSession {
    /// Opens a session for the user, with what its modules do to this process. `None`: this machine has no libpam.
    ///
    /// # Errors
    /// A module refused or failed. Nothing stays open.
    pub(super) fn open(request: &Request) -> Result<Option<Self>, PamError> {
        let text = |text: &str| CString::new(text).map_err(|_| PamError::Text(text.to_owned()));
        let (service, user) = (text(&request.service)?, text(&request.user)?);
        let items = [
            ("pam_set_item(PAM_TTY)", PAM_TTY, text(&request.terminal)?),
            // Not as PAM_RHOST: an operator is no host, and libaudit would look it up in the DNS.
            ("pam_set_item(PAM_RUSER)", PAM_RUSER, text(&request.operator)?),
        ];
        let Some(library) = Library::load()? else {
            return Ok(None);
        };
        let conversation = Box::new(Conversation {
            converse,
            data: ptr::null_mut(),
        });
        let mut handle = ptr::null_mut();
        #[expect(unsafe_code, reason = "libpam is C")]
        // SAFETY: all pointers are valid during the call, and the conversation as long as the handle.
        let started = unsafe {
            (library.start)(
                service.as_ptr(),
                user.as_ptr(),
                &raw const *conversation,
                &raw mut handle,
            )
        };
        if started != PAM_SUCCESS || handle.is_null() {
            return Err(PamError::Step {
                step: "pam_start",
                text: format!("error {started}"),
            });
        }
        let session = Self {
            library,
            handle,
            _conversation: conversation,
        };
        match session.begin(&items) {
            Ok(()) => Ok(Some(session)),
            Err((code, error)) => {
                session.end(code);
                Err(error)
            }
        }
    }

    fn begin(&self, items: &[(&'static str, c_int, CString)]) -> Result<(), (c_int, PamError)> {
        for (step, item, value) in items {
            #[expect(unsafe_code, reason = "libpam is C")]
            // SAFETY: the handle is open, and libpam copies the text during the call.
            let set = unsafe { (self.library.set_item)(self.handle, *item, value.as_ptr().cast()) };
            self.check(step, set)?;
        }
        self.check(
            "pam_setcred",
            self.call(self.library.set_credentials, PAM_ESTABLISH_CRED),
        )?;
        let opened = self.call(self.library.open_session, 0);
        if opened != PAM_SUCCESS {
            self.call(self.library.set_credentials, PAM_DELETE_CRED);
        }
        self.check("pam_open_session", opened)
    }

    fn call(&self, function: WithFlags, flags: c_int) -> c_int {
        #[expect(unsafe_code, reason = "libpam is C")]
        // SAFETY: the handle is open, and the function one that takes it and flags.
        unsafe {
            function(self.handle, flags)
        }
    }

    fn check(&self, step: &'static str, code: c_int) -> Result<(), (c_int, PamError)> {
        if code == PAM_SUCCESS {
            return Ok(());
        }
        #[expect(unsafe_code, reason = "libpam is C")]
        // SAFETY: libpam gives the address of a fixed text, or none.
        let text = unsafe {
            let text = (self.library.describe)(self.handle, code);
            match text.is_null() {
                true => format!("error {code}"),
                false => CStr::from_ptr(text).to_string_lossy().into_owned(),
            }
        };
        Err((code, PamError::Step { step, text }))
    }

    /// What the modules want in the environment.
    pub(super) fn variables(&self) -> Vec<(OsString, OsString)> {
        let mut variables = Vec::new();
        #[expect(unsafe_code, reason = "libpam is C")]
        // SAFETY: the list and its texts are ours, made with malloc, ended by a null, and freed once.
        unsafe {
            let list = (self.library.get_variables)(self.handle);
            if list.is_null() {
                return variables;
            }
            let mut next = list;
            while !(*next).is_null() {
                let text = CStr::from_ptr(*next).to_bytes();
                if variables.len() < MAX_VARIABLES
                    && let Some(equals) = text.iter().position(|byte| *byte == b'=')
                    && let (name, [b'=', value @ ..]) = text.split_at(equals)
                {
                    let owned = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
                    variables.push((owned(name), owned(value)));
                }
                libc::free((*next).cast());
                next = next.add(1);
            }
            libc::free(list.cast());
        }
        variables
    }

    /// Closes the session.
    pub(super) fn close(self) {
        let closed = self.call(self.library.close_session, 0);
        self.call(self.library.set_credentials, PAM_DELETE_CRED);
        self.end(closed);
    }

    fn end(&self, code: c_int) {
        self.call(self.library.end, code);
    }
}

/// What modules have to say goes to the terminal, which is standard output; questions have no answer.
extern "C" fn converse(
    count: c_int,
    messages: *mut *const Message,
    responses: *mut *mut Response,
    _: *mut c_void,
) -> c_int {
    let Some(count) = usize::try_from(count).ok().filter(|count| *count <= MAX_MESSAGES) else {
        return PAM_CONV_ERR;
    };
    if messages.is_null() || responses.is_null() {
        return PAM_CONV_ERR;
    }
    for index in 0..count {
        #[expect(unsafe_code, reason = "libpam is C")]
        // SAFETY: libpam gives an array of `count` pointers to messages, whose texts end with a NUL.
        let (style, text) = unsafe {
            let message = *messages.add(index);
            if message.is_null() || (*message).text.is_null() {
                return PAM_CONV_ERR;
            }
            ((*message).style, CStr::from_ptr((*message).text).to_bytes())
        };
        if !matches!(style, PAM_ERROR_MSG | PAM_TEXT_INFO) {
            return PAM_CONV_ERR;
        }
        show(text);
    }
    #[expect(unsafe_code, reason = "libpam frees the answers with free")]
    // SAFETY: `responses` is where libpam wants the address of `count` answers; empty ones are all zero.
    unsafe {
        let empty = libc::calloc(count.max(1), size_of::<Response>());
        if empty.is_null() {
            return PAM_BUF_ERR;
        }
        *responses = empty.cast();
    }
    PAM_SUCCESS
}

fn show(text: &[u8]) {
    let shown = text.get(..MAX_TEXT_BYTES).unwrap_or(text);
    let mut terminal = std::io::stdout().lock();
    // A terminal that takes nothing costs a greeting.
    let _shown = terminal
        .write_all(shown)
        .and_then(|()| terminal.write_all(b"\n"))
        .and_then(|()| terminal.flush());
}
