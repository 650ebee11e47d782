//! What the broker takes from the machine beside its engine: the time of day and chance. A simulation has its own of both.

use uuid::Uuid;

use crate::types::TimeUs;

/// The world outside.
#[derive(Clone, Default)]
pub struct World {
    #[cfg(feature = "faults")]
    simulated: Option<Simulated>,
}

/// A world that is made from a seed (`tests/simulation`). The monotonic clock is tokio's, which a test can stop.
#[cfg(feature = "faults")]
#[derive(Clone)]
pub struct Simulated {
    /// The wall clock, in microseconds.
    pub wall: std::sync::Arc<dyn Fn() -> i64 + Send + Sync>,
    /// 128 bits by chance.
    pub chance: std::sync::Arc<dyn Fn() -> u128 + Send + Sync>,
}

impl World {
    /// One from a seed.
    #[cfg(feature = "faults")]
    pub fn simulated(simulated: Simulated) -> Self {
        Self { simulated: Some(simulated) }
    }

    /// Is it one from a seed?
    #[cfg(feature = "faults")]
    pub fn is_simulated(&self) -> bool {
        self.simulated.is_some()
    }

    /// The wall clock.
    pub fn now(&self) -> TimeUs {
        #[cfg(feature = "faults")]
        if let Some(simulated) = &self.simulated {
            return TimeUs((simulated.wall)());
        }
        TimeUs::now()
    }

    /// Monotonic time since `began`.
    pub fn since(&self, began: tokio::time::Instant) -> std::time::Duration {
        began.elapsed()
    }

    /// A new UUID, later than those before it.
    pub fn uuid(&self) -> Uuid {
        self.chance().unwrap_or_else(Uuid::now_v7)
    }

    /// A new UUID that nobody can guess.
    pub fn random_uuid(&self) -> Uuid {
        self.chance().unwrap_or_else(Uuid::new_v4)
    }

    fn chance(&self) -> Option<Uuid> {
        #[cfg(feature = "faults")]
        if let Some(simulated) = &self.simulated {
            return Some(Uuid::from_u128((simulated.chance)()));
        }
        None
    }
}
