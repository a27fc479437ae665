//! Who calls, and whether they may.
//!
//! In: the file of identities, and of each call its `authorization` header and the client's certificate. Out:
//! an [`Identity`](crate::identity::Identity) among the request's extensions, or a refusal with a stable
//! reason. Where no identities are configured, everybody is
//! [`anonymous`](crate::identity::Identity::anonymous).
//!
//! | module | what |
//! |---|---|
//! | `file`, `parse` | the YAML file: shape and schema, values, what is wrong and where |
//! | `token`, `bearer` | random tokens by their hashes; the header that they come in |
//! | `certificate` | the names in a client's certificate |
//! | `jwt`, `keys`, `provider` | tokens of issuers, the issuers' keys, signatures by ring |
//! | `telephony` | what Twilio and `AudioHook` sign with |
//! | `roles` | which role each method needs |
//! | `gate`, `layer` | all of it together, in front of the services |
//! | `error` | what is wrong with a file, why a call is refused |
//!
//! What always holds: a token stands in no file, no log and no error; nothing is let through that is not in
//! the table of `roles`; a new file is taken whole or not at all.

mod bearer;
mod certificate;
mod error;
mod file;
mod gate;
mod jwt;
mod keys;
mod layer;
mod parse;
mod provider;
mod roles;
mod telephony;
mod token;

#[cfg(test)]
mod tests;

pub use bearer::bearer;
pub use error::{IdentitiesError, Refusal};
pub use gate::{Gate, Standing};
pub use layer::{GateLayer, Gated};
pub use parse::Identities;
pub use roles::{Access, needed};
pub(super) use telephony::Signed;
pub use token::{BadHash, NoRandomness, TokenHash, new_token};
