//! What a command put out on a node, all of it: read from its recording, which the node sends while the command runs.

mod events;
mod follower;
mod lines;
mod show;

pub(crate) use self::{
    events::{Piece, Stream},
    follower::{Follower, News},
    lines::Lines,
    show::execute,
};
