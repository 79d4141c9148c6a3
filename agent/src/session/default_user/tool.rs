//! A tool of this machine, run to its end: in a clean environment, with a limit of time, and with its complaint kept.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{
    io::AsyncReadExt,
    process::{ChildStderr, Command},
    time::{Duration, timeout},
};

/// Where the tools of the administrator are; the daemon's own search path may lack half of it.
const FOLDERS: [&str; 6] = [
    "/usr/sbin",
    "/sbin",
    "/usr/bin",
    "/bin",
    "/usr/local/sbin",
    "/usr/local/bin",
];
/// What of its complaint is kept.
const MAX_SAID_BYTES: usize = 1024;
/// For the last words of a tool that has ended: others may hold its standard error open.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// How a tool failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::session) enum ToolError {
    #[error("failed to run {tool}: {reason}")]
    Run { tool: PathBuf, reason: String },
    #[error("{tool} did not end within {seconds} seconds and was killed")]
    TimedOut { tool: PathBuf, seconds: u64 },
    #[error("{tool} refused: {said}")]
    Refused { tool: PathBuf, said: String },
}

/// Finds a tool by its name.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    FOLDERS
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|tool| tool.is_file())
}

/// Runs a tool.
///
/// # Errors
/// It did not end with 0 in time. It is killed then.
pub(super) async fn run<const N: usize>(
    tool: &Path,
    arguments: [&OsStr; N],
    limit: Duration,
) -> Result<(), ToolError> {
    let failed = |error: std::io::Error| ToolError::Run {
        tool: tool.to_owned(),
        reason: error.to_string(),
    };
    let mut child = Command::new(tool)
        .args(arguments)
        .env_clear()
        .env("PATH", FOLDERS.join(":"))
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let mut stderr = child.stderr.take();
    let mut said = Vec::new();
    let end = async {
        loop {
            tokio::select! {
                status = child.wait() => break status,
                open = hear(&mut stderr, &mut said), if stderr.is_some() => if !open {
                    stderr = None;
                },
            }
        }
    };
    let status = match timeout(limit, end).await {
        Ok(status) => status.map_err(failed)?,
        Err(_) => {
            return Err(ToolError::TimedOut {
                tool: tool.to_owned(),
                seconds: limit.as_secs(),
            });
        }
    };
    if status.success() {
        return Ok(());
    }
    while let Ok(true) = timeout(LAST_WORDS, hear(&mut stderr, &mut said)).await {}
    let said = String::from_utf8_lossy(&said);
    let said = said.trim().replace(char::is_control, " ");
    Err(ToolError::Refused {
        tool: tool.to_owned(),
        said: if said.is_empty() { status.to_string() } else { said },
    })
}

/// Reads on; the beginning is kept. False at the end.
async fn hear(stderr: &mut Option<ChildStderr>, said: &mut Vec<u8>) -> bool {
    let Some(stderr) = stderr else { return false };
    let mut buffer = [0; 512];
    match stderr.read(&mut buffer).await {
        Ok(read @ 1..) => {
            let room = MAX_SAID_BYTES.saturating_sub(said.len()).min(read);
            said.extend_from_slice(buffer.get(..room).unwrap_or_default());
            true
        }
        Ok(0) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(script: &str, limit: Duration) -> Result<(), ToolError> {
        run(Path::new("/bin/sh"), ["-c".as_ref(), script.as_ref()], limit).await
    }

    #[tokio::test]
    async fn a_tool_that_fails_is_quoted_and_cut() {
        let long = Duration::from_secs(20);
        assert_eq!(shell("env | grep -q HOME && exit 1; true", long).await, Ok(()));
        let refused = shell("echo no room >&2; exit 3", long).await.unwrap_err();
        assert_eq!(refused.to_string(), "/bin/sh refused: no room");
        let refused = shell("exit 3", long).await.unwrap_err();
        assert!(refused.to_string().contains("exit status: 3"));
        let flood = shell("seq 1 100000 >&2; exit 1", long).await.unwrap_err();
        assert!(flood.to_string().len() < 2 * MAX_SAID_BYTES);
        let gone = run(Path::new("/nowhere/tool"), [], long).await;
        assert!(matches!(gone, Err(ToolError::Run { .. })));
    }

    #[tokio::test]
    async fn a_tool_that_hangs_is_killed_and_one_whose_children_stay_is_not_waited_for() {
        let hung = shell("exec sleep 1000", Duration::from_millis(50)).await;
        assert!(matches!(hung, Err(ToolError::TimedOut { .. })));
        let done = shell("sleep 5 & exit 0", Duration::from_secs(4)).await;
        assert_eq!(done, Ok(()));
    }
}
