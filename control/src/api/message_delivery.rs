//! Operations of the capability `message_delivery`.

use super::Router;

pub(super) fn routes(router: Router) -> Router {
    router
}
