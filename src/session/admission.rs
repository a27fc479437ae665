//! Who gets in: quotas of identities, and whether the process has room for one stream more.
//!
//! In: an identity that wants to open a stream or to have a clip analysed. Out: a [`Permit`] for as long
//! as that takes, or why not ([`Refused`]). New streams are refused before live ones suffer: what is
//! measured and reckoned stands in [`super::load`].
//!
//! Audio is metered by a bucket that holds one minute's worth and refills evenly. What has been analysed
//! is charged; an identity whose bucket is empty waits. The last chunk or clip may take more than is left:
//! the debt is paid before anything else is taken, so that the mean holds whatever the sizes.
//!
//! An identity at its quota of streams may open one that goes on with another: its client has lost the
//! connection, which the server may notice a minute later. Until such a stream has said that it does, it
//! is counted beside the quota; there are never more of these than the quota has streams.
//!
//! Always:
//! 1. A permit gives back what it holds when it is dropped, whoever drops it.
//! 2. Accounts are kept for identities that have something open or owe something, and for no others: a
//!    client that makes up names cannot fill the memory.
//! 3. An identity without a quota of audio pays nothing per chunk, not even a lock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::load::{Load, LoadLimits, Pressure, Reading};
use crate::identity::{Identity, Tenant};

/// What identities may use that have no quota of their own; zero is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Streams open at once.
    pub streams: u32,
    /// Audio in one minute.
    pub audio_per_minute: Duration,
}

/// Why nobody gets in now.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refused {
    /// As many streams as the identity may have.
    #[error("{identity} has {limit} streams open and may have no more at once; end one first")]
    Streams {
        /// Its name.
        identity: Arc<str>,
        /// How many.
        limit: u32,
    },
    /// As much audio as the identity may have analysed.
    #[error("{identity} has used its {limit:?} of audio a minute; go on in {retry:?}")]
    Audio {
        /// Its name.
        identity: Arc<str>,
        /// How much.
        limit: Duration,
        /// When there is some again.
        retry: Duration,
    },
    /// The process has no room.
    #[error("the server takes no more streams now: {0}")]
    Load(#[from] Pressure),
}

/// When to come back to a server without room, or to an identity's full quota of streams: they end every
/// few seconds where there are many.
const RETRY: Duration = Duration::from_secs(2);
/// Share by which delays are spread, so that those who were refused together do not come back together.
const JITTER: f64 = 0.5;

impl Refused {
    /// The label in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Streams { .. } => "quota_streams",
            Self::Audio { .. } => "quota_audio",
            Self::Load(pressure) => pressure.name(),
        }
    }

    /// When to try again, spread at random.
    pub fn retry(&self) -> Duration {
        let least = match self {
            Self::Streams { .. } | Self::Load(_) => RETRY,
            Self::Audio { retry, .. } => *retry,
        };
        least.mul_f64(1.0 + JITTER * fastrand::f64())
    }
}

/// Decides who gets in.
#[derive(Debug)]
pub struct Admission {
    quotas: Quotas,
    load: Mutex<Load>,
    accounts: Mutex<Accounts>,
}

/// Tenant and name: an issuer's claim of a name need not be unique, and the wards of a hospital are not to share a
/// quota because each has an Anna.
type Holder = (Tenant, Arc<str>);

fn holder(identity: &Identity) -> Holder {
    (identity.tenant.clone(), identity.name.clone())
}

/// Those who have something open or owe something.
#[derive(Debug, Default)]
struct Accounts {
    by_holder: HashMap<Holder, Arc<Mutex<Account>>>,
    /// Number at which those that are settled are cleared out.
    clear_at: usize,
}

/// Settled accounts are not looked for below this number.
const FEW_ACCOUNTS: usize = 256;

/// What one identity uses.
#[derive(Debug, Default)]
struct Account {
    /// Permits that are out.
    permits: u32,
    /// Those of them that are streams.
    streams: u32,
    bucket: Option<Bucket>,
}

impl Account {
    fn is_settled(&self, now: Instant) -> bool {
        self.permits == 0 && self.bucket.as_ref().is_none_or(|bucket| bucket.is_full(now))
    }
}

/// Audio that may be analysed.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// What one minute gives, and what it holds.
    minute: Duration,
    /// Seconds in it at `at`; negative is a debt.
    seconds: f64,
    at: Instant,
}

impl Bucket {
    fn full(minute: Duration, now: Instant) -> Self {
        Self { minute, seconds: minute.as_secs_f64(), at: now }
    }

    fn seconds(&self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let full = self.minute.as_secs_f64();
        (self.seconds + passed * full / 60.0).min(full)
    }

    fn is_full(&self, now: Instant) -> bool {
        self.seconds(now) >= self.minute.as_secs_f64()
    }

    fn take(&mut self, audio: Duration, now: Instant) {
        self.seconds = self.seconds(now) - audio.as_secs_f64();
        self.at = now;
    }

    /// How long until there is something in it; `None` if there is.
    fn empty_for(&self, now: Instant) -> Option<Duration> {
        let debt = -self.seconds(now);
        let wait = debt * 60.0 / self.minute.as_secs_f64();
        // Rather a millisecond too long than an answer that says "now" and means "not quite".
        (debt >= 0.0).then(|| Duration::from_secs_f64(wait) + Duration::from_millis(1))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is counted is right after each statement; a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Stream,
    Clip,
}

impl Admission {
    /// Nobody is in yet.
    pub fn new(quotas: Quotas, limits: LoadLimits) -> Arc<Self> {
        Arc::new(Self {
            quotas,
            load: Mutex::new(Load::new(limits)),
            accounts: Mutex::new(Accounts::default()),
        })
    }

    /// Takes a reading of the process in.
    pub fn note(&self, reading: Reading) {
        lock(&self.load).note(reading);
    }

    /// What speaks against one stream more, if anything does.
    pub fn pressure(&self) -> Option<Pressure> {
        lock(&self.load).pressure(Instant::now())
    }

    /// Opens a stream; see [`Permit::own_place`].
    ///
    /// # Errors
    /// [`Refused`].
    pub fn admit(self: &Arc<Self>, identity: &Arc<Identity>) -> Result<Permit, Refused> {
        self.permit(identity, Kind::Stream)
    }

    /// Begins to analyse a clip. It does not count as a stream; its audio is charged like a stream's.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn admit_clip(self: &Arc<Self>, identity: &Arc<Identity>) -> Result<Permit, Refused> {
        self.permit(identity, Kind::Clip)
    }

    fn permit(self: &Arc<Self>, identity: &Arc<Identity>, kind: Kind) -> Result<Permit, Refused> {
        let now = Instant::now();
        // One lock at a time, the accounts' first: who has no quota left costs the load no look.
        let (account, excess) = self.take_from_account(identity, kind, now)?;
        let mut permit = Permit {
            admission: self.clone(),
            identity: identity.clone(),
            metered: self.audio_per_minute(identity).is_some(),
            account,
            excess,
            kind,
            counted: false,
        };
        let mut load = lock(&self.load);
        if let Some(pressure) = load.pressure(now) {
            // The permit takes the lock when it is dropped.
            drop(load);
            return Err(pressure.into());
        }
        if kind == Kind::Stream {
            load.opened();
            permit.counted = true;
        }
        drop(load);
        Ok(permit)
    }

    fn audio_per_minute(&self, identity: &Identity) -> Option<Duration> {
        let minute = identity.quota.audio_per_minute.unwrap_or(self.quotas.audio_per_minute);
        (!minute.is_zero()).then_some(minute)
    }

    fn take_from_account(
        &self,
        identity: &Identity,
        kind: Kind,
        now: Instant,
    ) -> Result<(Arc<Mutex<Account>>, Option<Refused>), Refused> {
        let mut accounts = lock(&self.accounts);
        accounts.clear_out(now);
        let account = accounts.by_holder.entry(holder(identity)).or_default().clone();
        let mut balance = lock(&account);
        // Quotas may have changed since: what is in the bucket stays, up to what it holds now.
        balance.bucket = self.audio_per_minute(identity).map(|minute| match balance.bucket {
            Some(bucket) if bucket.minute == minute => bucket,
            Some(bucket) => {
                let seconds = bucket.seconds(now).min(minute.as_secs_f64());
                Bucket { minute, seconds, at: now }
            }
            None => Bucket::full(minute, now),
        });
        let limit = identity.quota.streams.unwrap_or(self.quotas.streams);
        let excess = (kind == Kind::Stream && limit > 0 && balance.streams >= limit)
            .then(|| Refused::Streams { identity: identity.name.clone(), limit });
        if let Some(refused) = &excess
            && balance.streams >= limit.saturating_mul(2)
        {
            return Err(refused.clone());
        }
        if let Some(bucket) = &balance.bucket
            && let Some(retry) = bucket.empty_for(now)
        {
            let (identity, limit) = (identity.name.clone(), bucket.minute);
            return Err(Refused::Audio { identity, limit, retry });
        }
        balance.permits += 1;
        balance.streams += u32::from(kind == Kind::Stream);
        drop(balance);
        Ok((account, excess))
    }
}

impl Accounts {
    /// Forgets settled accounts, now and then: each is looked at once for every one that is made.
    fn clear_out(&mut self, now: Instant) {
        if self.by_holder.len() < self.clear_at.max(FEW_ACCOUNTS) {
            return;
        }
        self.by_holder.retain(|_, account| !lock(account).is_settled(now));
        self.clear_at = 2 * self.by_holder.len();
    }
}

/// Leave to go on, held for as long as a stream or a clip lives.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    identity: Arc<Identity>,
    account: Arc<Mutex<Account>>,
    /// What speaks against it if it takes no other stream's place.
    excess: Option<Refused>,
    kind: Kind,
    /// Whether the load counts it.
    counted: bool,
    metered: bool,
}

impl Permit {
    /// Whose it is.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Whether a stream has a place of its own in the identity's quota; without one it can only take the
    /// place of another of the identity's streams, which ends.
    ///
    /// # Errors
    /// [`Refused::Streams`].
    pub fn own_place(&self) -> Result<(), Refused> {
        self.excess.clone().map_or(Ok(()), Err)
    }

    /// Charges audio that has been analysed.
    ///
    /// # Errors
    /// [`Refused::Audio`] if it was more than there was. It is charged all the same.
    pub fn charge(&self, audio: Duration) -> Result<(), Refused> {
        if !self.metered {
            return Ok(());
        }
        let now = Instant::now();
        let mut account = lock(&self.account);
        let Some(bucket) = &mut account.bucket else {
            return Ok(());
        };
        bucket.take(audio, now);
        match bucket.empty_for(now) {
            // The last drop is not one too many.
            Some(retry) if bucket.seconds < 0.0 => Err(Refused::Audio {
                identity: self.identity.name.clone(),
                limit: bucket.minute,
                retry,
            }),
            _ => Ok(()),
        }
    }

    /// The largest chunk, in bytes, where the server takes `limit`.
    pub fn chunk_bytes(&self, limit: usize) -> usize {
        self.identity.quota.chunk_bytes.map_or(limit, |own| limit.min(own as usize))
    }

    /// The largest clip, in bytes, where the server takes `limit`.
    pub fn clip_bytes(&self, limit: usize) -> usize {
        self.identity.quota.clip_bytes.map_or(limit, |own| limit.min(own as usize))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.counted {
            lock(&self.admission.load).ended();
        }
        let mut accounts = lock(&self.admission.accounts);
        let mut account = lock(&self.account);
        account.permits = account.permits.saturating_sub(1);
        account.streams = account.streams.saturating_sub(u32::from(self.kind == Kind::Stream));
        let settled = account.is_settled(Instant::now());
        drop(account);
        if settled {
            accounts.by_holder.remove(&holder(&self.identity));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Quota;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    const OFF: LoadLimits = LoadLimits {
        busy: 0.0,
        engine_lag: Duration::ZERO,
        worker_delay: Duration::ZERO,
        memory: 0,
    };

    fn named(name: &str, quota: Quota) -> Arc<Identity> {
        Arc::new(Identity { name: name.into(), quota, ..Identity::anonymous().as_ref().clone() })
    }

    #[test]
    fn an_identity_has_as_many_streams_as_its_quota_says_and_others_are_not_touched() {
        let admission = Admission::new(Quotas { streams: 2, ..Quotas::default() }, OFF);
        let (a, b) = (named("a", Quota::default()), named("b", Quota::default()));
        let more = named("more", Quota { streams: Some(3), ..Quota::default() });
        let admit = |who: &Arc<Identity>| {
            let permit = admission.admit(who)?;
            permit.own_place().map(|()| permit)
        };
        let first = admit(&a).unwrap();
        let _second = admit(&a).unwrap();
        let refused = admit(&a).unwrap_err();
        assert_eq!(refused, Refused::Streams { identity: "a".into(), limit: 2 });
        // A clip is no stream.
        assert!(admission.admit_clip(&a).is_ok());
        let others: Vec<_> = (0..2).map(|_| admit(&b).unwrap()).collect();
        let own: Vec<_> = (0..3).map(|_| admit(&more).unwrap()).collect();
        assert!(admit(&more).is_err());
        drop(first);
        assert!(admit(&a).is_ok());
        drop((others, own));
    }

    #[test]
    fn those_who_may_go_on_with_another_are_as_many_as_the_quota_and_get_no_place_of_their_own() {
        let admission = Admission::new(Quotas { streams: 2, ..Quotas::default() }, OFF);
        let a = named("a", Quota::default());
        let mut permits: Vec<_> = (0..4).map(|_| admission.admit(&a).unwrap()).collect();
        let places = permits.iter().map(|permit| permit.own_place().is_ok());
        assert_eq!(places.collect::<Vec<_>>(), [true, true, false, false]);
        assert_eq!(admission.admit(&a).unwrap_err().name(), "quota_streams");
        // The places of two that have been taken over are taken.
        permits.drain(..2);
        assert!(admission.admit(&a).unwrap().own_place().is_err());
        permits.pop();
        assert!(admission.admit(&a).unwrap().own_place().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn audio_is_metered_by_the_minute_and_comes_back_evenly() {
        let quotas = Quotas { audio_per_minute: secs(60), ..Quotas::default() };
        let admission = Admission::new(quotas, OFF);
        let a = named("a", Quota::default());
        let permit = admission.admit(&a).unwrap();
        // The burst: a minute's worth at once.
        permit.charge(secs(60)).unwrap();
        let refused = permit.charge(secs(5)).unwrap_err();
        assert!(
            matches!(&refused, Refused::Audio { retry, .. }
            if (5.0..5.1).contains(&retry.as_secs_f64())),
            "{refused:?}"
        );
        assert!(refused.retry() >= secs(5) && refused.retry() < secs(8));
        drop(permit);
        // The debt outlives the permit.
        tokio::time::advance(secs(4)).await;
        assert_eq!(admission.admit_clip(&a).unwrap_err().name(), "quota_audio");
        tokio::time::advance(Duration::from_millis(1_500)).await;
        let permit = admission.admit(&a).unwrap();
        // At the pace of its sound a stream goes on for ever.
        for _ in 0..6_000 {
            tokio::time::advance(Duration::from_millis(100)).await;
            permit.charge(Duration::from_millis(100)).unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_quota_that_changes_keeps_what_was_used() {
        let admission = Admission::new(Quotas::default(), OFF);
        let of =
            |minute| named("a", Quota { audio_per_minute: Some(secs(minute)), ..Quota::default() });
        let permit = admission.admit(&of(60)).unwrap();
        permit.charge(secs(50)).unwrap();
        let permit = admission.admit(&of(6)).unwrap();
        permit.charge(secs(6)).unwrap();
        assert!(permit.charge(secs(1)).is_err());
        // None at all from now on.
        let free = admission.admit(&named("a", Quota::default())).unwrap();
        free.charge(secs(1_000)).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn accounts_of_those_who_owe_nothing_are_forgotten() {
        let quotas = Quotas { audio_per_minute: secs(60), ..Quotas::default() };
        let admission = Admission::new(quotas, OFF);
        for n in 0..1_000 {
            let permit = admission.admit(&named(&n.to_string(), Quota::default())).unwrap();
            permit.charge(secs(1)).unwrap();
        }
        assert_eq!(lock(&admission.accounts).by_holder.len(), 1_000);
        tokio::time::advance(secs(2)).await;
        for n in 0..2_000 {
            drop(admission.admit(&named(&format!("x{n}"), Quota::default())).unwrap());
        }
        let left = lock(&admission.accounts).by_holder.len();
        assert!(left <= 1_000, "{left}");
        lock(&admission.accounts).clear_at = 0;
        for n in 0..FEW_ACCOUNTS {
            let permit = admission.admit(&named(&format!("y{n}"), Quota::default())).unwrap();
            permit.charge(secs(1)).unwrap();
        }
        drop(admission.admit(&named("z", Quota::default())).unwrap());
        let left = lock(&admission.accounts).by_holder.len();
        assert!(left <= FEW_ACCOUNTS, "{left}");
    }

    #[test]
    fn two_of_the_same_name_in_two_tenants_have_a_quota_each() {
        let admission = Admission::new(Quotas { streams: 1, ..Quotas::default() }, OFF);
        let of = |tenant: &str| {
            let tenant = tenant.parse().unwrap();
            let anna = named("sso/anna", Quota::default());
            Arc::new(Identity { tenant, ..anna.as_ref().clone() })
        };
        let (one, two) = (admission.admit(&of("ward-1")), admission.admit(&of("ward-2")));
        let (one, two) = (one.unwrap(), two.unwrap());
        assert!(one.own_place().is_ok() && two.own_place().is_ok());
        assert!(admission.admit(&of("ward-1")).unwrap().own_place().is_err());
        drop((one, two));
        assert!(lock(&admission.accounts).by_holder.is_empty());
    }

    #[test]
    fn a_refusal_for_load_takes_nothing_from_the_quota() {
        let limits = LoadLimits { memory: 10, ..OFF };
        let admission = Admission::new(Quotas { streams: 1, ..Quotas::default() }, limits);
        let a = named("a", Quota::default());
        let reading = |resident| Reading {
            at: Instant::now(),
            workers: 1,
            workers_busy: Duration::ZERO,
            engines_busy: Vec::new(),
            engine_lag: Duration::ZERO,
            late: Duration::ZERO,
            resident: Some(resident),
        };
        admission.note(reading(11));
        assert_eq!(admission.admit(&a).unwrap_err().name(), "memory");
        assert_eq!(admission.admit_clip(&a).unwrap_err().name(), "memory");
        assert!(lock(&admission.accounts).by_holder.is_empty());
        admission.note(reading(1));
        let permit = admission.admit(&a).unwrap();
        assert_eq!(lock(&admission.load).live(), 1);
        drop(permit);
        assert_eq!(lock(&admission.load).live(), 0);
    }

    #[test]
    fn sizes_of_an_identity_only_lower_those_of_the_server() {
        let admission = Admission::new(Quotas::default(), OFF);
        let quota =
            Quota { chunk_bytes: Some(100), clip_bytes: Some(u32::MAX), ..Quota::default() };
        let permit = admission.admit(&named("a", quota)).unwrap();
        assert_eq!((permit.chunk_bytes(1_000), permit.clip_bytes(5)), (100, 5));
    }
}
