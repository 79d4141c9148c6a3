//! Decisions that know neither HTTP nor SQL: values in, values out, the time is an argument.

pub(crate) mod command;
pub(crate) mod invocation;
pub(crate) mod output_upload;
pub(crate) mod parameter;
pub(crate) mod preferences;
pub(crate) mod rate_control;
pub(crate) mod reply;
pub(crate) mod target;
