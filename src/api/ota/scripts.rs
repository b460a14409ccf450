//! Shell scripts around openssl, for fioctl before it could make certificates itself. It writes them
//! into the folder of its keys and runs them there, with the arguments that their heads tell.

use crate::model::FactoryName;

/// Each with the field that it is sent in, which is also its file name there.
const SCRIPTS: [(&str, &str); 4] = [
    ("create_ca", include_str!("scripts/create_ca.sh")),
    ("create_device_ca", include_str!("scripts/create_device_ca.sh")),
    ("sign_ca_csr", include_str!("scripts/sign_ca_csr.sh")),
    ("sign_tls_csr", include_str!("scripts/sign_tls_csr.sh")),
];

/// The scripts for one Factory. Its name is letters, digits, `.`, `_` and `-`, which no shell
/// reads in another way.
pub(super) fn scripts(factory: &FactoryName) -> impl Iterator<Item = (&'static str, String)> {
    let text = |text: &str| text.replace("@FACTORY@", factory.as_str());
    SCRIPTS.map(|(field, script)| (field, text(script))).into_iter()
}
