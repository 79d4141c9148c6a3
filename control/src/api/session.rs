//! Operations of the capability `session`.

use super::Router;

pub(super) fn routes(router: Router) -> Router {
    router
}
