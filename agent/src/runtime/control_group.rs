//! Control groups for what is started here, of either version: nothing leaves its group, whatever sessions and parents
//! it gives itself, so a group can be ended whole and limited whole.
//!
//! Groups are made below that of the agent. With version 2 the kernel gives limits only to groups whose parent has no
//! process of its own: systemd puts the daemon into a group beside them (`DelegateSubgroup=`), and where it does not,
//! groups have no limits and can still be ended. We never move ourselves: a unit whose own group may hold no process
//! could not be started again while workers of the last daemon live.

mod abandoned;
mod group;
mod hierarchy;
mod place;

pub(crate) use abandoned::Abandoned;
pub(crate) use group::{ControlGroup, enter, remove_leftovers};
pub(crate) use hierarchy::hierarchies;
pub(crate) use place::GroupPlaces;
