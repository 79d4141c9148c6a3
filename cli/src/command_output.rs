//! What a command put out on a node, all of it: read from its recording, which the node sends while the command runs.

mod follower;
mod lines;
mod show;

pub(crate) use self::{
    follower::{Follower, News},
    lines::Lines,
    show::execute,
};
