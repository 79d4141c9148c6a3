//! What `moorline run` takes for plans and roll-outs.

use std::time::Duration;

use clap::Args;

use super::wave::{WaveSpec, parse_waves};
use crate::arguments::parse_duration;

/// The waves of one `--wave`.
#[derive(Debug, Clone)]
pub(crate) struct Waves(pub(crate) Vec<WaveSpec>);

#[derive(Debug, Args)]
pub(crate) struct RolloutOptions {
    /// Show which nodes would run what, and how it ended there last; run nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Go wave after wave: NAME=tag:K=V, NAME=N, NAME=N% (of all) or NAME=all (the rest), with commas between several;
    /// may be repeated
    #[arg(long = "wave", value_name = "WAVES", value_parser = parse, conflicts_with = "detach")]
    pub(crate) waves: Vec<Waves>,
    /// After each wave, run this document on its nodes; where it fails, the roll-out halts
    #[arg(
        long,
        value_name = "NAME",
        requires = "waves",
        conflicts_with = "health_command"
    )]
    pub(crate) health_document: Option<String>,
    /// A parameter of the health document; repeated, its values make a list
    #[arg(long = "health-param", value_name = "K=V", value_parser = crate::arguments::parse_pair, requires = "health_document")]
    pub(crate) health_parameters: Vec<(String, String)>,
    /// As --health-document, with a line of a shell script
    #[arg(long, value_name = "LINE", requires = "waves")]
    pub(crate) health_command: Option<String>,
    /// Halt when a node of a wave is not connected for this long, and watch for as long after the last wave: a number
    /// and s, m or h
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration, requires = "waves")]
    pub(crate) heartbeat_grace: Duration,
    /// Begin without asking
    #[arg(long, requires = "waves")]
    pub(crate) yes: bool,
}

fn parse(text: &str) -> Result<Waves, String> {
    parse_waves(text).map(Waves)
}
