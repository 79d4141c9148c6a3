//! The node, as far as commands depend on it.

use std::path::PathBuf;

use crate::{
    config::CommandConfig,
    runtime::{NodeContext, Platform},
};

/// What this capability needs to know about its node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) limits: CommandConfig,
    /// Absolute, since a worker stands elsewhere.
    pub(super) state_dir: PathBuf,
    pub(super) instance_id: String,
    pub(super) region: String,
    pub(super) platform: Platform,
    pub(super) is_moorline: bool,
}

impl Node {
    pub(super) fn of(context: &NodeContext) -> Self {
        Self {
            limits: context.config.command.clone(),
            state_dir: std::path::absolute(&context.state_dir).unwrap_or_else(|_| context.state_dir.clone()),
            instance_id: context.instance_id().to_string(),
            region: context.registration.region.clone(),
            platform: context.platform.clone(),
            is_moorline: context.registration.is_moorline,
        }
    }
}
