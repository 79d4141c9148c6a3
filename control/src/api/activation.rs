//! Operations of the capability `activation`.

use super::Router;

pub(super) fn routes(router: Router) -> Router {
    router
}
