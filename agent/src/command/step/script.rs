//! `aws:runShellScript` and `aws:runPowerShellScript` (documents.md §2.1).

use std::{
    ffi::{OsStr, OsString},
    fs::OpenOptions,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use moorline_protocol::{
    document::{Ending, Step, member},
    error_chain,
};
use nix::{
    sys::statvfs::{FsFlags, statvfs},
    unistd::{geteuid, getuid},
};
use serde_json::{Map, Value};
use tokio::process::Command;

use crate::runtime::user_database;

use super::{
    Outputs, StepContext, make_private_directory, process,
    secure_parameters::{self, Revealed},
};

/// Programs that run PowerShell scripts, the first that is there.
const POWER_SHELLS: [&str; 2] = ["/usr/bin/powershell", "/usr/bin/pwsh"];
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3600);
/// Any other number of seconds means the default (documents.md §1.15).
const TIMEOUT_SECONDS: std::ops::RangeInclusive<i64> = 5..=172_800;
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What systemd tells the agent about itself is not for scripts: one that answered would speak for the agent.
const PRIVATE_VARIABLES: [&str; 6] = [
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// What a script is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    Shell,
    PowerShell,
}

impl Language {
    fn file_name(self) -> &'static str {
        match self {
            Self::Shell => "_script.sh",
            Self::PowerShell => "_script.ps1",
        }
    }

    /// How a script asks for the value of a variable of its environment.
    pub(super) fn looked_up(self, variable: &str) -> String {
        match self {
            Self::Shell => format!("${{{variable}}}"),
            Self::PowerShell => format!("${{env:{variable}}}"),
        }
    }
}

/// The inputs, read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Inputs {
    script: String,
    working_directory: String,
    timeout: Duration,
    environment: Vec<(String, String)>,
}

/// Runs one set of inputs.
pub(super) async fn run(
    language: Language,
    step: &Step,
    inputs: &Map<String, Value>,
    directory: &Path,
    context: &mut StepContext<'_>,
    outputs: &mut Outputs,
) -> Ending {
    let inputs = match Inputs::read(inputs) {
        Ok(inputs) => inputs,
        Err(reason) => {
            return Ending::NotStarted(format!("invalid format in plugin properties: {reason}"));
        }
    };
    if let Some((name, _)) = step.environment.iter().find(|(_, value)| value.contains('\0')) {
        return Ending::NotStarted(format!(
            "the value of {name} holds a NUL byte, which no variable can"
        ));
    }
    let power_shell = match language {
        Language::Shell => None,
        Language::PowerShell => {
            let found = POWER_SHELLS
                .into_iter()
                .find(|program| Path::new(program).exists());
            let Some(program) = found else {
                return Ending::NotStarted(format!(
                    "PowerShell is not installed: there is no {}",
                    POWER_SHELLS.join(" and no ")
                ));
            };
            Some(program)
        }
    };
    let revealed =
        secure_parameters::reveal(language, &inputs.script, inputs.environment, context.task).await;
    let Revealed {
        script,
        environment,
        secrets,
    } = match revealed {
        Ok(revealed) => revealed,
        Err(error) => return Ending::NotStarted(error_chain(&error)),
    };
    if !secrets.is_empty() {
        context.hide(secrets);
        outputs.hide(&context.secrets);
    }
    let script = match ScriptFile::write(language, &script, directory, context) {
        Ok(script) => script,
        Err(error) => return Ending::NotStarted(format!("the script cannot be written: {error}")),
    };
    let mut command = match power_shell {
        None => script.command(),
        Some(program) => {
            let mut command = Command::new(program);
            // With a terminal's name it writes that terminal's sequences into the output.
            command.arg("-f").arg(&script.path).env_remove("TERM");
            command
        }
    };
    let working_directory = working_directory(&inputs.working_directory, &context.run_directory);
    if let Some(path) = &working_directory {
        if !path.is_dir() {
            return Ending::NotStarted(format!("chdir {}: no such directory", path.display()));
        }
        command.current_dir(path);
    }
    set_environment(&mut command, &environment, &step.environment, context);
    process::run(command, inputs.timeout, context, outputs).await
}

impl Inputs {
    fn read(inputs: &Map<String, Value>) -> Result<Self, String> {
        let lines: Vec<&str> = match member(inputs, "runCommand") {
            Some(Value::String(line)) => vec![line],
            Some(Value::Array(lines)) => lines
                .iter()
                .map(|line| line.as_str().ok_or("runCommand must be a list of texts"))
                .collect::<Result<_, _>>()?,
            None | Some(Value::Null) => return Err("runCommand is missing".to_owned()),
            Some(_) => return Err("runCommand must be a list of texts".to_owned()),
        };
        let working_directory = match member(inputs, "workingDirectory") {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(path)) => path.clone(),
            Some(_) => return Err("workingDirectory must be a text".to_owned()),
        };
        let environment = match member(inputs, "environment") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Object(members)) => members
                .iter()
                .map(|(name, value)| match value {
                    Value::String(value) if is_variable(name, value) => Ok((name.clone(), value.clone())),
                    _ => Err(format!("environment variable {name:?} cannot be set")),
                })
                .collect::<Result<_, _>>()?,
            Some(_) => return Err("environment must be an object".to_owned()),
        };
        Ok(Self {
            script: lines.join("\n") + "\n",
            working_directory,
            timeout: timeout(member(inputs, "timeoutSeconds")),
            environment,
        })
    }
}

fn is_variable(name: &str, value: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
}

/// A number or a text, cut to whole seconds; anything out of range is the default.
pub(super) fn timeout(value: Option<&Value>) -> Duration {
    let seconds = match value {
        Some(Value::Number(number)) => number
            .as_i64()
            .or_else(|| number.as_f64().and_then(|number| whole(&number.to_string()))),
        Some(Value::String(text)) => whole(text.trim()),
        _ => None,
    };
    seconds
        .filter(|seconds| TIMEOUT_SECONDS.contains(seconds))
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map_or(DEFAULT_TIMEOUT, Duration::from_secs)
}

/// The whole part of a decimal number.
fn whole(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    fraction
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| whole.parse().ok())?
}

/// A script on a disk, for as long as it runs.
#[derive(Debug)]
struct ScriptFile {
    path: PathBuf,
    /// The first line names it, and the file system refuses to execute files.
    interpreter: Option<Vec<OsString>>,
    /// It stands in a directory that nobody cleans up.
    is_temporary: bool,
}

impl ScriptFile {
    /// Writes the script, to memory-backed places when the state directory takes none.
    fn write(
        language: Language,
        text: &str,
        directory: &Path,
        context: &StepContext<'_>,
    ) -> std::io::Result<Self> {
        let first_error = match Self::write_in(language, text, directory, false) {
            Ok(script) => return Ok(script),
            Err(error) => error,
        };
        let runtime_directory = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        for place in other_places(geteuid().is_root(), runtime_directory) {
            let directory = place.join("moorline/scripts").join(&context.task.command_id);
            let written = make_private_directory(&directory)
                .and_then(|()| Self::write_in(language, text, &directory, true));
            if let Ok(script) = written {
                return Ok(script);
            }
        }
        Err(first_error)
    }

    fn write_in(
        language: Language,
        text: &str,
        directory: &Path,
        is_temporary: bool,
    ) -> std::io::Result<Self> {
        let path = directory.join(language.file_name());
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o700)
            .open(&path)?;
        // The mode above is subject to the umask.
        file.set_permissions(std::fs::Permissions::from_mode(0o700))?;
        if language == Language::PowerShell {
            // Without it PowerShell may take the text for another encoding than UTF-8.
            file.write_all("\u{feff}".as_bytes())?;
        }
        file.write_all(text.as_bytes())?;
        drop(file);
        let is_noexec =
            statvfs(&path).is_ok_and(|file_system| file_system.flags().contains(FsFlags::ST_NOEXEC));
        let interpreter = is_noexec.then(|| interpreter(text));
        Ok(Self {
            path,
            interpreter,
            is_temporary,
        })
    }

    /// `sh -c PATH`: sh executes the file, so its first line chooses the interpreter; without one sh reads it itself.
    fn command(&self) -> Command {
        match &self.interpreter {
            None => {
                let mut command = Command::new("sh");
                command.arg("-c").arg(quoted(&self.path));
                command
            }
            Some(interpreter) => {
                let mut words = interpreter.iter();
                let mut command =
                    Command::new(words.next().map_or_else(|| OsStr::new("sh"), OsString::as_os_str));
                command.args(words).arg(&self.path);
                command
            }
        }
    }
}

impl Drop for ScriptFile {
    fn drop(&mut self) {
        if self.is_temporary {
            // What is left is small, private and gone with the next boot.
            drop(std::fs::remove_file(&self.path));
            if let Some(directory) = self.path.parent() {
                drop(std::fs::remove_dir(directory));
            }
        }
    }
}

/// Where scripts can be written when the state directory takes none. A root that has come by another user's runtime
/// directory, as through su, must not trust it: its owner could exchange the script.
fn other_places(is_root: bool, runtime_directory: Option<PathBuf>) -> impl Iterator<Item = PathBuf> {
    let own = runtime_directory.filter(|_| !is_root);
    std::iter::once(PathBuf::from("/run")).chain(own)
}

/// The program of a `#!` line and its one argument, as the kernel reads them; empty: sh.
fn interpreter(script: &str) -> Vec<OsString> {
    let Some(line) = script.strip_prefix("#!").and_then(|rest| rest.lines().next()) else {
        return Vec::new();
    };
    let line = line.trim();
    match line.split_once([' ', '\t']) {
        Some((program, argument)) => vec![program.into(), argument.trim().into()],
        None if line.is_empty() => Vec::new(),
        None => vec![line.into()],
    }
}

/// A path as one word of a shell: names of steps may hold anything.
fn quoted(path: &Path) -> OsString {
    let mut word = OsString::from("'");
    let text = path.to_string_lossy();
    word.push(text.replace('\'', r"'\''"));
    word.push("'");
    word
}

/// `None`: the worker's own.
fn working_directory(wanted: &str, run_directory: &Path) -> Option<PathBuf> {
    let path = Path::new(wanted);
    if path.is_absolute() {
        return Some(path.to_owned());
    }
    let downloads = run_directory.join("downloads").join(path);
    downloads.is_dir().then_some(downloads)
}

/// The agent's environment, then the step's, then the document's parameters, then what tells the script where it runs.
pub(super) fn set_environment(
    command: &mut Command,
    variables: &[(String, String)],
    parameters: &[(String, String)],
    context: &StepContext<'_>,
) {
    for name in PRIVATE_VARIABLES {
        command.env_remove(name);
    }
    let user = user_database::user_by_id(getuid());
    let home = user
        .as_ref()
        .map_or_else(|| "/".into(), |user| user.dir.clone().into_os_string());
    let name: OsString = user
        .as_ref()
        .map_or_else(|| "root".into(), |user| user.name.clone().into());
    let shell = user
        .map(|user| user.shell.into_os_string())
        .filter(|shell| !shell.is_empty())
        .unwrap_or_else(|| "/bin/sh".into());
    let defaults = [
        ("HOME", home),
        ("LOGNAME", name.clone()),
        ("PATH", DEFAULT_PATH.into()),
        ("SHELL", shell),
        ("USER", name),
    ];
    for (variable, value) in defaults {
        if std::env::var_os(variable).is_none_or(|present| present.is_empty()) {
            command.env(variable, value);
        }
    }
    for (name, value) in variables.iter().chain(parameters) {
        command.env(name, value);
    }
    let task = context.task;
    command
        .env("AWS_SSM_INSTANCE_ID", &task.instance_id)
        .env("AWS_SSM_REGION_NAME", &task.region)
        .env("AWS_SSM_PLATFORM_NAME", &task.platform.name)
        .env("AWS_SSM_PLATFORM_VERSION", &task.platform.version);
    if let Some(command_id) = context.command_id_variable {
        command.env("SSM_COMMAND_ID", command_id);
    }
}

#[cfg(test)]
mod tests;
