//! The policies that come with the service.

/// The name and the YAML of every policy that is built in, in alphabetical order.
pub fn embedded() -> &'static [(&'static str, &'static str)] {
    &[
        ("care-call", include_str!("../../policies/care-call.yaml")),
        ("classroom-tutor", include_str!("../../policies/classroom-tutor.yaml")),
        ("contact-centre", include_str!("../../policies/contact-centre.yaml")),
    ]
}
