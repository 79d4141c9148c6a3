//! Operations of the capability `transcript`.

use super::Router;

pub(super) fn routes(router: Router) -> Router {
    router
}
