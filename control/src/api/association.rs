//! Operations of the capability `association`.

use super::Router;

pub(super) fn routes(router: Router) -> Router {
    router
}
