//! Message delivery: the older way of handing commands to nodes, by long poll. Everything goes over the control
//! channel here, but the stock agent polls during its first minute and takes quick errors badly.

mod get_messages;
mod settle_message;

use moorline_ssm::message_delivery::{AcknowledgeMessage, FailMessage, GetMessages, SendReply};

use super::Router;
use crate::auth::Resource;

pub(super) fn routes(router: Router) -> Router {
    router
        .on::<AcknowledgeMessage, _, _>(|_| Resource::Any, settle_message::acknowledge_message)
        .on::<FailMessage, _, _>(|_| Resource::Any, settle_message::fail_message)
        .on::<GetMessages, _, _>(
            |input| Resource::Node(input.destination.clone().unwrap_or_default()),
            get_messages::get_messages,
        )
        .on::<SendReply, _, _>(|_| Resource::Any, settle_message::send_reply)
}
