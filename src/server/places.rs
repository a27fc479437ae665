//! Places for what there may be a number of at once, clips and watches, of which nobody takes more than a share.
//!
//! Those who share are the tenants, and of the tenant `default`, which is where nobody has been given a
//! tenant, its identities. A share stays free for others even when it is not needed: whoever comes later finds
//! a place at once, and need not wait for somebody to end who has no reason to.
//!
//! What always holds: a place is given back when it is dropped, whoever drops it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::identity::{Identity, Tenant};

/// Whose places are counted together.
type Party = (Tenant, Option<Arc<str>>);

fn party(identity: &Identity) -> Party {
    let alone = identity.tenant.as_str() == Tenant::DEFAULT;
    (identity.tenant.clone(), alone.then(|| identity.name.clone()))
}

/// The places.
#[derive(Debug)]
pub(super) struct Places {
    limit: usize,
    /// How many one party may have.
    share: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    count: usize,
    by_party: HashMap<Party, usize>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// All are taken.
    All {
        /// How many there are.
        limit: usize,
    },
    /// The party has its share.
    Share {
        /// How many that is.
        share: usize,
    },
}

impl Places {
    /// `limit` of them, of which a party may have that `share`, and one at least.
    pub(super) fn new(limit: usize, share: f32) -> Arc<Self> {
        let share = ((limit as f32 * share).ceil() as usize).clamp(1, limit.max(1));
        Arc::new(Self { limit, share, taken: Mutex::default() })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // The counts are right after each statement.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for `identity`.
    pub(super) fn take(self: &Arc<Self>, identity: &Identity) -> Result<Place, Full> {
        let party = party(identity);
        let mut taken = self.taken();
        if taken.count >= self.limit {
            return Err(Full::All { limit: self.limit });
        }
        let own = taken.by_party.entry(party.clone()).or_default();
        if *own >= self.share {
            return Err(Full::Share { share: self.share });
        }
        *own += 1;
        taken.count += 1;
        drop(taken);
        Ok(Place { places: self.clone(), party })
    }
}

/// A place that is taken.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    party: Party,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.count = taken.count.saturating_sub(1);
        if let Some(own) = taken.by_party.get_mut(&self.party) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                taken.by_party.remove(&self.party);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(tenant: &str, name: &str) -> Identity {
        let tenant = tenant.parse().unwrap();
        Identity { name: name.into(), tenant, ..Identity::anonymous().as_ref().clone() }
    }

    #[test]
    fn a_tenant_has_its_share_whoever_of_it_comes_and_leaves_the_rest_to_others() {
        let places = Places::new(4, 0.5);
        let first = places.take(&of("a", "one")).unwrap();
        let _second = places.take(&of("a", "two")).unwrap();
        assert_eq!(places.take(&of("a", "three")).unwrap_err(), Full::Share { share: 2 });
        let _others: Vec<_> = (0..2).map(|_| places.take(&of("b", "one")).unwrap()).collect();
        assert_eq!(places.take(&of("c", "one")).unwrap_err(), Full::All { limit: 4 });
        drop(first);
        assert!(places.take(&of("a", "three")).is_ok());
    }

    #[test]
    fn where_no_tenants_are_given_each_identity_has_a_share_and_one_place_at_least() {
        let places = Places::new(3, 0.1);
        let one = places.take(&of("default", "one")).unwrap();
        assert_eq!(places.take(&of("default", "one")).unwrap_err(), Full::Share { share: 1 });
        let two = places.take(&of("default", "two")).unwrap();
        drop((one, two));
        assert!(places.taken().by_party.is_empty());
    }

    #[test]
    fn a_whole_share_is_all_there_are() {
        let places = Places::new(18, 1.0);
        let _all: Vec<_> = (0..18).map(|_| places.take(&of("default", "a")).unwrap()).collect();
        assert_eq!(places.take(&of("default", "a")).unwrap_err(), Full::All { limit: 18 });
    }
}
