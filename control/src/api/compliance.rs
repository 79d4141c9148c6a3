//! Operations of the capability `compliance`.

use super::Router;

pub(super) fn routes(router: Router) -> Router {
    router
}
