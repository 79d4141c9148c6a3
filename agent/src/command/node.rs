//! The node, as far as commands depend on it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use ring::digest;

use crate::{
    config::{CommandConfig, Config, TranscriptConfig},
    recording::Courier,
    runtime::{GroupPlaces, NodeContext, Platform, ResourceLimits},
};

use super::drop_folder::DropFolder;

/// What this capability needs to know about its node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) limits: CommandConfig,
    /// Folder of the owner's policy.
    pub(super) policy_folder: PathBuf,
    /// Absolute, since a worker stands elsewhere.
    pub(super) state_dir: PathBuf,
    pub(super) instance_id: String,
    pub(super) region: String,
    pub(super) platform: Platform,
    pub(super) is_moorline: bool,
    /// Where control groups of steps are made.
    pub(super) groups: Option<GroupPlaces>,
    /// Whose documents are run as well.
    pub(super) drop_folder: Option<DropFolder>,
    /// How commands are recorded.
    pub(super) transcript: TranscriptConfig,
    /// Whether the endpoint knows the key that seals.
    pub(super) seals: Arc<AtomicBool>,
    pub(super) courier: Courier,
}

impl Node {
    pub(super) fn of(context: &NodeContext, courier: Courier) -> Self {
        let limits = context.config.command.clone();
        let state_dir = std::path::absolute(&context.state_dir).unwrap_or_else(|_| context.state_dir.clone());
        Self {
            groups: find_groups(&state_dir, &limits.limits),
            limits,
            state_dir,
            policy_folder: context.config.policy.folder.clone(),
            instance_id: context.instance_id().to_string(),
            region: context.registration.region.clone(),
            platform: context.platform.clone(),
            is_moorline: context.registration.is_moorline,
            transcript: context.config.transcript.clone(),
            seals: Arc::clone(&context.seals),
            courier,
            drop_folder: DropFolder::new(&context.config.local.drop_folder),
        }
    }

    /// A machine that is registered nowhere. `state_dir` is absolute.
    pub(super) fn alone(config: &Config, state_dir: &Path) -> Self {
        let limits = config.command.clone();
        Self {
            groups: find_groups(state_dir, &limits.limits),
            limits,
            state_dir: state_dir.to_owned(),
            instance_id: String::new(),
            region: String::new(),
            platform: Platform::detect(),
            is_moorline: false,
            policy_folder: config.policy.folder.clone(),
            drop_folder: DropFolder::new(&config.local.drop_folder),
            transcript: config.transcript.clone(),
            seals: Arc::default(),
            courier: Courier::default(),
        }
    }
}

/// What the name of each agent's folders begins with.
pub(super) const GROUPS_PREFIX: &str = "moorline-steps-";

/// The name of the folders that control groups of steps are made in. An agent has one, and no two that share a machine
/// the same.
pub(super) fn groups_name(state_dir: &Path) -> String {
    let hash = digest::digest(&digest::SHA256, state_dir.as_os_str().as_encoded_bytes());
    let hash: String = hash
        .as_ref()
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{GROUPS_PREFIX}{hash}")
}

/// What of control groups can be had here; what of the limits cannot be kept is told.
pub(super) fn find_groups(state_dir: &Path, limits: &ResourceLimits) -> Option<GroupPlaces> {
    let groups = GroupPlaces::find(&groups_name(state_dir), limits);
    let lacking = GroupPlaces::lacking(groups.as_ref(), limits);
    if !lacking.is_empty() {
        tracing::warn!(
            settings = lacking.join(", "),
            "limits of [command.limits] cannot be kept on this machine, and are ignored: of control groups of version \
             2 it takes systemd 254, which puts the daemon into a group of its own"
        );
    }
    groups
}
