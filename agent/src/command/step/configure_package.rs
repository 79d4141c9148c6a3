//! `aws:configurePackage` (documents.md §2.4): packages that are documents of type Package.
//!
//! [`installer`] decides which script runs next, [`package`] gets a version here, [`state`] keeps what is known of
//! it, [`unpack`] unpacks; here they are put together.

mod installer;
mod package;
mod state;
mod unpack;

use std::{path::Path, time::Duration};

use moorline_protocol::{
    document::{Ending, Step, member},
    error_chain,
    package::{Target, platform_family, platform_name},
};
use serde_json::{Map, Value};
use tokio::process::Command;

use self::{
    installer::{Installer, Next, Outcome, Record, Script, ScriptEnd, Version, Wish},
    state::PackageState,
};
use super::{
    Outputs, StepContext,
    script::{Language, set_environment, timeout},
    secure_parameters::{self, Revealed},
};

/// Arguments of scripts have names that begin so.
const ARGUMENT_PREFIX: &str = "SSM_";
/// The exit code of a script that asks for a reboot.
const REBOOT: i32 = 194;
/// Exists where systemd is the first process.
const SYSTEMD: &str = "/run/systemd/system";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Install,
    Uninstall,
}

/// The inputs, read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Inputs {
    action: Action,
    /// Name or ARN.
    reference: String,
    /// Of the package; `None`: the default version, or the installed one.
    version: Option<String>,
    is_in_place: bool,
    arguments: Vec<(String, String)>,
    /// Of each script.
    timeout: Duration,
}

/// Installs or uninstalls.
pub(super) async fn run(
    step: &Step,
    inputs: &Map<String, Value>,
    directory: &Path,
    context: &mut StepContext<'_>,
    outputs: &mut Outputs,
) -> Ending {
    let inputs = match Inputs::read(inputs) {
        Ok(inputs) => inputs,
        Err(reason) => return outputs.fail(reason),
    };
    let name = inputs.name().to_owned();
    let failed = |error: anyhow::Error| {
        format!(
            "failed to {} {name}: {}",
            inputs.action.verb(),
            error_chain(&*error)
        )
    };
    let revealed =
        secure_parameters::reveal(Language::Shell, "", inputs.arguments.clone(), context.task).await;
    let arguments = match revealed {
        Ok(Revealed {
            environment, secrets, ..
        }) => {
            context.hide(secrets);
            outputs.hide(&context.secrets);
            environment
        }
        Err(error) => return outputs.fail(failed(error.into())),
    };
    let state = match PackageState::take(&context.task.state_dir, &name) {
        Ok(state) => state,
        Err(error) => return outputs.fail(failed(error.into())),
    };
    let installer = match begin(&inputs, &state, directory, context).await {
        Ok(installer) => installer,
        Err(error) => {
            // What was got and is refused goes again.
            if let Ok(record) = state.record() {
                state.keep_only(&record.needed());
            }
            return match *context.stop.borrow() {
                Some(reason) => Ending::Stopped(reason),
                None => outputs.fail(failed(error)),
            };
        }
    };
    let mut job = Job {
        name: &name,
        action: inputs.action,
        installer,
        state: &state,
        arguments,
        timeout: inputs.timeout,
        target: target(context),
    };
    match job.run(step, context, outputs).await {
        Ok(ending) => ending,
        Err(error) => outputs.fail(failed(error)),
    }
}

/// Goes on after a reboot, or gets what is wanted here before anything is changed.
async fn begin(
    inputs: &Inputs,
    state: &PackageState,
    directory: &Path,
    context: &StepContext<'_>,
) -> anyhow::Result<Installer> {
    let record: Record = state.record()?;
    let step = directory.display().to_string();
    if let Some(installer) = Installer::resume(&record, &step) {
        return Ok(installer);
    }
    let wish = match inputs.action {
        Action::Uninstall => Wish::Uninstall {
            version: inputs.version.clone(),
        },
        Action::Install => {
            let version = inputs.version.as_deref();
            let version = package::get(&inputs.reference, version, &target(context), state, context).await?;
            Wish::Install {
                version,
                is_in_place: inputs.is_in_place,
            }
        }
    };
    let installer = Installer::begin(record, wish, &step);
    // What is to run must be there before the old version goes.
    if let Next::Run(version, Script::Install | Script::Update | Script::Uninstall) = installer.next()
        && inputs.action == Action::Install
    {
        let needed = match inputs.is_in_place && installer.record.installed.is_some() {
            true => Script::Update,
            false => Script::Install,
        };
        let wanted = installer
            .record
            .underway
            .as_ref()
            .and_then(|underway| underway.wanted());
        let wanted = state.version_directory(&wanted.unwrap_or(version).sha256);
        anyhow::ensure!(
            wanted.join(needed.file_name()).is_file(),
            "the package has no {}",
            needed.file_name()
        );
    }
    Ok(installer)
}

/// A package on its way.
struct Job<'a> {
    name: &'a str,
    action: Action,
    installer: Installer,
    state: &'a PackageState,
    arguments: Vec<(String, String)>,
    timeout: Duration,
    target: Target,
}

impl Job<'_> {
    async fn run(
        &mut self,
        step: &Step,
        context: &mut StepContext<'_>,
        outputs: &mut Outputs,
    ) -> anyhow::Result<Ending> {
        loop {
            self.state.store(&self.installer.record)?;
            match self.installer.next().clone() {
                Next::Over(outcome) => {
                    self.state.keep_only(&self.installer.record.needed());
                    return Ok(self.tell(outcome, outputs));
                }
                Next::Run(version, script) => {
                    match self.run_script(&version, script, step, context, outputs).await {
                        Ok(end) => self.installer.ran(end),
                        // The record says which script it was; after a reboot it runs again.
                        Err(ending) => return Ok(ending),
                    }
                }
            }
        }
    }

    /// # Errors
    /// The step ends here, at least for now.
    async fn run_script(
        &self,
        version: &Version,
        script: Script,
        step: &Step,
        context: &mut StepContext<'_>,
        outputs: &mut Outputs,
    ) -> Result<ScriptEnd, Ending> {
        let directory = self.state.version_directory(&version.sha256);
        if !directory.join(script.file_name()).is_file() {
            return Ok(ScriptEnd::Missing);
        }
        let (name, action) = (self.name, script.action());
        outputs.say(format_args!("Initiating {name} {} {action}", version.name));
        let mut command = Command::new("sh");
        command.arg(script.file_name()).current_dir(&directory);
        set_environment(&mut command, &self.arguments, &step.environment, context);
        for (variable, value) in self.variables(script, context) {
            command.env(format!("BWS_{variable}"), value);
        }
        outputs.say(format_args!("{action} output:"));
        let ending = super::process::run(command, self.timeout, context, outputs).await;
        let end = match ending {
            Ending::Exited(0) | Ending::Done => ScriptEnd::Succeeded,
            Ending::Exited(REBOOT) | Ending::Stopped(_) => return Err(ending),
            Ending::NotStarted(reason) => {
                outputs.say(format_args!(
                    "{} could not be started: {reason}",
                    script.file_name()
                ));
                ScriptEnd::Failed
            }
            Ending::Exited(code) => {
                outputs.say(format_args!(
                    "{} ended with exit status {code}",
                    script.file_name()
                ));
                ScriptEnd::Failed
            }
            Ending::Killed(signal) => {
                outputs.say(format_args!(
                    "{} was ended by signal {signal}",
                    script.file_name()
                ));
                ScriptEnd::Failed
            }
            Ending::Failed => ScriptEnd::Failed,
        };
        let status = match end {
            ScriptEnd::Succeeded | ScriptEnd::Missing => "Success",
            ScriptEnd::Failed => "Failed",
        };
        outputs.say(format_args!("Plugin aws:runShellScript ResultStatus {status}"));
        Ok(end)
    }

    /// What scripts of packages are told, after `BWS_`.
    fn variables(&self, script: Script, context: &StepContext<'_>) -> [(&'static str, String); 11] {
        let Target {
            platform,
            version,
            architecture,
        } = &self.target;
        let family = platform_family(platform);
        let init = if Path::new(SYSTEMD).exists() {
            "systemd"
        } else {
            ""
        };
        [
            ("ACCOUNT_ID", String::new()),
            ("ACTION_NAME", script.action().to_owned()),
            ("ARCHITECTURE", architecture.clone()),
            ("AVAILABILITY_ZONE", String::new()),
            ("INIT_SYSTEM", init.to_owned()),
            ("INSTANCE_ID", context.task.instance_id.clone()),
            ("PACKAGE_MANAGER", package_manager(family).to_owned()),
            ("PLATFORM_FAMILY", family.to_owned()),
            ("PLATFORM_NAME", platform.clone()),
            ("PLATFORM_VERSION", version.clone()),
            ("REGION", context.task.region.clone()),
        ]
    }

    fn tell(&self, outcome: Outcome, outputs: &mut Outputs) -> Ending {
        let name = self.name;
        let installed = self.installer.record.installed.as_ref();
        let version = installed.map(|version| version.name.as_str()).unwrap_or_default();
        match outcome {
            Outcome::Installed => {
                outputs.say(format_args!("Successfully installed {name} {version}"));
                Ending::Done
            }
            Outcome::AlreadyInstalled => {
                outputs.say(format_args!("{name} {version} is already installed"));
                Ending::Done
            }
            Outcome::Uninstalled => {
                outputs.say(format_args!("Successfully uninstalled {name}"));
                Ending::Done
            }
            Outcome::NotInstalled => {
                outputs.say(match version {
                    "" => format!("{name} is not installed"),
                    other => format!("{name} is not installed in this version: version {other} is"),
                });
                Ending::Done
            }
            Outcome::InstallFailed => {
                outputs.fail("Failed to install package; install status Failed")
            }
            Outcome::UninstallFailed => {
                outputs.fail("Failed to uninstall package; uninstall status Failed")
            }
            Outcome::RolledBack => outputs.fail(format_args!(
                "Failed to install package; install status RolledBack: {name} {version} is installed as before"
            )),
            Outcome::RollBackFailed => outputs.fail(match self.action {
                Action::Install => format!(
                    "Failed to install package; install status RollbackFailed: neither the new version of {name} nor \
                     the old one is in order"
                ),
                Action::Uninstall => format!("Failed to uninstall {name}"),
            }),
        }
    }
}

impl Action {
    fn verb(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Uninstall => "uninstall",
        }
    }
}

/// This node, as manifests see it.
fn target(context: &StepContext<'_>) -> Target {
    Target {
        platform: platform_name(&context.task.platform.name),
        version: context.task.platform.version.clone(),
        architecture: match std::env::consts::ARCH {
            "x86" => "386",
            other => other,
        }
        .to_owned(),
    }
}

fn package_manager(family: &str) -> &'static str {
    match family {
        "alpine" => "apk",
        "amazon" | "fedora" | "rhel" => "yum",
        "arch" => "pacman",
        "debian" => "apt",
        "suse" => "zypper",
        _ => "",
    }
}

impl Inputs {
    fn read(inputs: &Map<String, Value>) -> Result<Self, String> {
        let text = |name: &str| match member(inputs, name) {
            None | Some(Value::Null) => Ok(""),
            Some(Value::String(text)) if !text.contains('\0') => Ok(text.trim()),
            Some(_) => Err(format!("{name} must be a text")),
        };
        let action = match text("action")? {
            "Install" => Action::Install,
            "Uninstall" => Action::Uninstall,
            other => {
                return Err(format!(
                    "unsupported action: {other:?}; Install and Uninstall are known"
                ));
            }
        };
        let reference = text("name")?.to_owned();
        if reference.is_empty() {
            return Err("empty name field".to_owned());
        }
        if !text("source")?.is_empty() {
            return Err("source parameter is not supported in this version".to_owned());
        }
        let is_in_place = match text("installationType")? {
            "" | "Uninstall and reinstall" => false,
            "In-place update" => true,
            other => return Err(format!("unsupported installationType: {other:?}")),
        };
        Ok(Self {
            action,
            reference,
            version: Some(text("version")?.to_owned()).filter(|version| !version.is_empty()),
            is_in_place,
            arguments: arguments(member(inputs, "additionalArguments"))?,
            timeout: timeout(member(inputs, "timeoutSeconds")),
        })
    }

    /// The package's name, out of its ARN or as it is.
    fn name(&self) -> &str {
        self.reference.rsplit('/').next().unwrap_or_default()
    }
}

/// `additionalArguments`: a map of variables for the scripts, or its JSON.
fn arguments(given: Option<&Value>) -> Result<Vec<(String, String)>, String> {
    let shape = || "additionalArguments must be a JSON object of variables".to_owned();
    let parsed: Value;
    let members = match given {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::String(text)) if text.trim().is_empty() => return Ok(Vec::new()),
        Some(Value::String(text)) => {
            parsed = serde_json::from_str(text).map_err(|error| format!("{}: {error}", shape()))?;
            parsed.as_object().ok_or_else(shape)?
        }
        Some(Value::Object(members)) => members,
        Some(_) => return Err(shape()),
    };
    let argument = |(name, value): (&String, &Value)| {
        let is_name = name.starts_with(ARGUMENT_PREFIX)
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_name {
            return Err(format!(
                "additionalArguments: {name:?} must begin with {ARGUMENT_PREFIX}, and have letters, digits and _ only"
            ));
        }
        let value = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match value.contains('\0') {
            true => Err(format!(
                "additionalArguments: the value of {name} holds a NUL byte"
            )),
            false => Ok((name.clone(), value)),
        }
    };
    members.iter().map(argument).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(inputs: &Value) -> Result<Inputs, String> {
        Inputs::read(inputs.as_object().unwrap())
    }

    #[test]
    fn inputs_are_read_as_the_published_document_gives_them() {
        let inputs = read(&json!({
            "action": "Install", "installationType": "In-place update", "name": "arn:aws:ssm:r:1:document/Mine",
            "version": " 1.0-2 ", "additionalArguments": "{\"SSM_A\":\"b c\",\"SSM_N\":7}", "source": "",
        }))
        .unwrap();
        assert_eq!(inputs.name(), "Mine");
        assert_eq!((inputs.action, inputs.is_in_place), (Action::Install, true));
        assert_eq!(inputs.version.as_deref(), Some("1.0-2"));
        let expected =
            [("SSM_A", "b c"), ("SSM_N", "7")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(inputs.arguments, expected);
        let as_map = json!({"action": "Uninstall", "Name": "Mine", "additionalArguments": {"SSM_A": "b"}});
        assert_eq!(read(&as_map).unwrap().arguments.len(), 1);
    }

    #[test]
    fn inputs_that_mean_nothing_are_refused_by_name() {
        let base = json!({"action": "Install", "name": "Mine"});
        assert!(read(&base).is_ok());
        for (name, value) in [
            ("action", json!("Remove")),
            ("name", json!("")),
            ("source", json!("https://elsewhere")),
            ("installationType", json!("other")),
            ("version", json!(1)),
            ("additionalArguments", json!("[1]")),
            ("additionalArguments", json!("{")),
            ("additionalArguments", json!({"PATH": "/tmp"})),
            ("additionalArguments", json!({"SSM_A": "\u{0}"})),
        ] {
            let mut inputs = base.clone();
            inputs[name] = value;
            let error = read(&inputs).unwrap_err();
            assert!(error.contains(name), "{error}");
        }
    }
}
