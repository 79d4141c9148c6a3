//! Operations of the capability `document`.

use super::Router;

pub(super) fn routes(router: Router) -> Router {
    router
}
