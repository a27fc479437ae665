//! Policies rehearsed: long conversations of one voice, put together from labelled clips, heard by models
//! that never met the voice, watched by policies.
//!
//! ```text
//! clips of one speaker -> a script: talk, and stretches of a feeling      (script)
//!   -> played to a model that has not heard the speaker, through the
//!      listener of a live stream: readings                                (voice, play)
//!   -> watched by each policy: what was raised, and when                  (play)
//!   -> found and missed stretches, false alarms per hour of talk          (figures, table)
//! ```
//!
//! Always:
//! 1. The same clips, seed and number give the same script, whatever else is rehearsed.
//! 2. The truth is in the script: a stretch begins with the first sample of its first clip and ends with
//!    the last of its last.
//! 3. No sound is kept, unless somebody asks for the files.
//!
//! What it cannot show is said in docs/policies.md: the feelings are acted, and clips come again and again.

mod figures;
mod play;
mod script;
mod table;
mod voice;

pub use figures::{Alarms, Figures, Found, KindFigures, PolicyFigures, RuleFigures, Settings};
pub use play::{Outcome, Plan, Raise, RehearsalError, rehearse};
pub use script::{Kind, Part, SESSIONS, Script, Stretch};
pub use table::markdown;
pub use voice::{Speaker, speakers};
