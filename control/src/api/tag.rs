//! Operations of the capability `tag`.

use super::Router;

pub(super) fn routes(router: Router) -> Router {
    router
}
