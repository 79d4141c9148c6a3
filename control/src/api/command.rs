//! Operations of the capability `command`.

use super::Router;

pub(super) fn routes(router: Router) -> Router {
    router
}
