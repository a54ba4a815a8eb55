//! What functions refer to is kept from the bucket's lifecycle rule, which only knows ages.

use crate::ports::StoreError;
use crate::ports::artifacts::ArtifactStore;
use crate::ports::registry::Registry;

/// Functions read at once.
const PAGE: usize = 100;
/// Versions of a function: more are not kept by anybody.
const VERSIONS_MAX: usize = 10_000;

/// Renews the code of every version of every function; how many artifacts that were. For one node of a fleet to do once in
/// [`super::RENEW_AGE`]: a look for each version, a copy for each that is old.
pub async fn keep_referenced(registry: &dyn Registry, artifacts: &dyn ArtifactStore) -> Result<u64, StoreError> {
    let (mut kept, mut cursor) = (0, None::<String>);
    loop {
        let page = registry.list(None, PAGE, cursor.as_deref()).await?;
        for (function, _) in &page.items {
            for version in registry.versions(function.id, VERSIONS_MAX).await? {
                if artifacts.touch(version.code).await? {
                    kept += 1;
                } else {
                    tracing::error!(
                        function_id = %function.id,
                        version = version.number,
                        digest = %version.code,
                        "a version's code is not in the artifact store: deploy it again"
                    );
                }
            }
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(kept);
        }
    }
}
