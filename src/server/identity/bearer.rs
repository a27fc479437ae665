//! The `authorization` header (RFC 6750) -> the token in it.

use super::error::Refusal;

/// Longest token, in bytes: tokens of real issuers with many groups have some 4 KiB.
const MAX_TOKEN: usize = 8 * 1024;

/// The token of a header's value.
///
/// # Errors
/// [`Refusal::TokenInvalid`], which quotes nothing of it.
pub fn bearer(value: &[u8]) -> Result<&str, Refusal> {
    let text = std::str::from_utf8(value).map_err(|_| invalid())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(invalid)?;
    let token = token.trim_matches(' ');
    // RFC 6750, section 2.1: `b64token`.
    let fits = |c: u8| c.is_ascii_alphanumeric() || b"-._~+/=".contains(&c);
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || !token.bytes().all(fits) {
        return Err(invalid());
    }
    if token.len() > MAX_TOKEN {
        return Err(Refusal::invalid(format_args!("it has more than {MAX_TOKEN} bytes")));
    }
    Ok(token)
}

fn invalid() -> Refusal {
    Refusal::invalid("the header authorization must be `Bearer TOKEN`, once")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_found_whatever_the_case_of_its_scheme() {
        for value in ["Bearer ut_a-b", "bearer ut_a-b", "BEARER  ut_a-b "] {
            assert_eq!(bearer(value.as_bytes()), Ok("ut_a-b"), "{value:?}");
        }
        assert_eq!(bearer(b"Bearer a.b+c/d~e=="), Ok("a.b+c/d~e=="));
    }

    #[test]
    fn anything_else_is_refused_without_being_quoted() {
        let long = format!("Bearer {}", "x".repeat(MAX_TOKEN + 1));
        let wrong: [&[u8]; 8] = [
            b"",
            b"Bearer",
            b"Bearer ",
            b"Basic c2VjcmV0",
            b"Bearer two words",
            b"Bearer \xff\xfe",
            b"secret",
            long.as_bytes(),
        ];
        for value in wrong {
            let refusal = bearer(value).unwrap_err();
            assert_eq!(refusal.reason(), "TOKEN_INVALID");
            assert!(!refusal.to_string().contains("c2VjcmV0"), "{refusal}");
        }
    }
}
