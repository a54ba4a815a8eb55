//! Where what the policies have learned outlives the process.

use async_trait::async_trait;

use crate::domain::policy::learned::Lesson;

use super::StoreError;

#[async_trait]
pub trait Lessons: Send + Sync + 'static {
    /// Those of functions that still are and of current versions, the one saved longest ago first. Bounded: the oldest give way.
    async fn load(&self) -> Result<Vec<Lesson>, StoreError>;

    /// Each in the place of an earlier one of its function, or of that one's versions up to it.
    async fn save(&self, lessons: Vec<Lesson>) -> Result<(), StoreError>;
}
