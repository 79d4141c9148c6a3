//! Operations of the capability `inventory`.

use super::Router;

pub(super) fn routes(router: Router) -> Router {
    router
}
