//! What is handed out to be typed into devices, from the system's random numbers.

use utmos_core::{
    binding::{CODE_BYTES, code_of},
    credential::Secret,
};

/// The system gives no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random numbers: {0}")]
pub struct NoRandomNumbers(getrandom::Error);

/// A binding code of 100 bits.
///
/// # Errors
/// When the system gives no random numbers.
pub fn binding_code() -> Result<Secret, NoRandomNumbers> {
    let mut bytes = [0; CODE_BYTES];
    getrandom::fill(&mut bytes).map_err(NoRandomNumbers)?;
    Ok(code_of(&bytes))
}

/// The MQTT password of a gateway: as long as a binding code, in small letters and without dashes.
///
/// # Errors
/// When the system gives no random numbers.
pub fn mqtt_password() -> Result<Secret, NoRandomNumbers> {
    let code = binding_code()?;
    Ok(Secret::new(code.expose().replace('-', "").to_lowercase()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::collections::BTreeSet;

    use utmos_core::binding::code_hash;

    use super::*;

    #[test]
    fn what_is_handed_out_has_its_form_and_never_repeats() {
        let mut seen = BTreeSet::new();
        for _ in 0..200 {
            let (code, password) = (binding_code().unwrap(), mqtt_password().unwrap());
            assert!(code_hash(code.expose()).is_some());
            assert_eq!(password.expose().len(), 20);
            assert!(
                seen.insert(code.expose().to_owned()) && seen.insert(password.expose().to_owned())
            );
        }
    }
}
