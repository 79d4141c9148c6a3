//! The output of nodes while they run, from the recordings that they make of the command.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::sleep;

use moorline_protocol::transcript::OutputPiece;

use crate::{
    command_output::{Follower, News},
    error::CliError,
    operator::{Operator, is_passing},
};

/// Nodes that are followed at once: each costs a connection. Output of the others is shown when they end.
const MOST_FOLLOWED: usize = 64;
/// Shorter than an endpoint holds a request.
const WAIT_MILLIS: i32 = 15_000;
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// How much of a node's output was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    Nothing,
    /// More may come.
    Begun,
    /// There will be no more of it.
    All,
}

type Look<'a> = BoxFuture<'a, (String, Follower<'a>, Result<News, CliError>)>;

/// The nodes that are followed.
pub(super) struct Live<'a> {
    operator: &'a Operator,
    command: &'a str,
    looks: FuturesUnordered<Look<'a>>,
    shown: BTreeMap<String, Shown>,
}

impl<'a> Live<'a> {
    pub(super) fn new(operator: &'a Operator, command: &'a str) -> Self {
        Self {
            operator,
            command,
            looks: FuturesUnordered::new(),
            shown: BTreeMap::new(),
        }
    }

    /// Begins to follow a node that runs the command, unless too many are followed.
    pub(super) fn follow(&mut self, node: &str) {
        if self.looks.len() < MOST_FOLLOWED && !self.shown.contains_key(node) {
            self.shown.insert(node.to_owned(), Shown::Nothing);
            let follower = Follower::new(self.operator, self.command, node);
            self.looks.push(look(node.to_owned(), follower));
        }
    }

    pub(super) fn shown(&self, node: &str) -> Shown {
        self.shown.get(node).copied().unwrap_or(Shown::Nothing)
    }

    /// The next output of any node. Never, where none is followed.
    pub(super) async fn next(&mut self) -> (String, Vec<OutputPiece>) {
        loop {
            let Some((node, follower, news)) = self.looks.next().await else {
                return std::future::pending().await;
            };
            let shown = self.shown.entry(node.clone()).or_insert(Shown::Nothing);
            let (pieces, is_last) = match news {
                Ok(News::Output(pieces)) => (pieces, false),
                Ok(News::Last(pieces)) => (pieces, true),
                // not recorded, or not for us: what the node reports at its end has to do
                Err(_) => continue,
            };
            if is_last {
                *shown = Shown::All;
            } else {
                if !pieces.is_empty() {
                    *shown = Shown::Begun;
                }
                self.looks.push(look(node.clone(), follower));
            }
            if !pieces.is_empty() || is_last {
                return (node, pieces);
            }
        }
    }
}

fn look<'a>(node: String, mut follower: Follower<'a>) -> Look<'a> {
    async move {
        loop {
            match follower.look(WAIT_MILLIS).await {
                Err(CliError::Call(error)) if is_passing(&error) => sleep(RETRY_PAUSE).await,
                news => return (node, follower, news),
            }
        }
    }
    .boxed()
}
