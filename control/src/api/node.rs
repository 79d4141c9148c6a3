//! Operations of the capability `node`.

use super::Router;

pub(super) fn routes(router: Router) -> Router {
    router
}
