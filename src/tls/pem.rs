//! Certificates and keys as people keep them: PEM files.

use std::path::Path;
use std::time::{Duration, SystemTime};

use tokio_rustls::rustls::client::verify_server_cert_signed_by_trust_anchor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{self, CertificateError, RootCertStore};
use zeroize::Zeroizing;

use super::Error;

/// All certificates of a file, in order: at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let missing = || Error::Missing { path: path.to_owned(), wanted: "certificate" };
    let text = read(path)?;
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(|_| missing())?;
    if certificates.is_empty() { Err(missing()) } else { Ok(certificates) }
}

/// The private key of a file.
pub(super) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let text = read(path)?;
    let marks = [&b"ENCRYPTED PRIVATE KEY"[..], b"Proc-Type: 4,ENCRYPTED"];
    if marks.iter().any(|mark| text.windows(mark.len()).any(|window| window == *mark)) {
        return Err(Error::Encrypted { path: path.to_owned() });
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| Error::Missing { path: path.to_owned(), wanted: "private key" })
}

/// The certificates of a file as those whose word is taken.
pub(super) fn authorities(path: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|source| Error::Unfit { path: path.to_owned(), source })?;
    }
    Ok(roots)
}

/// Until when a certificate is valid, if it is valid now.
pub(super) fn valid_until(certificate: &CertificateDer<'_>, path: &Path, now: SystemTime) -> Result<SystemTime, Error> {
    let unfit = |source| Error::Unfit { path: path.to_owned(), source };
    let parsed = ParsedCertificate::try_from(certificate).map_err(unfit)?;
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    match outside_of_its_time(&parsed, now) {
        Some(CertificateError::ExpiredContext { not_after, .. }) => {
            Err(Error::Expired { path: path.to_owned(), until: system_time(not_after) })
        }
        Some(CertificateError::NotValidYetContext { not_before, .. }) => {
            Err(Error::NotYetValid { path: path.to_owned(), from: system_time(not_before) })
        }
        // In the far future every certificate has expired, and the error says since when.
        Some(_) | None => match outside_of_its_time(&parsed, FAR_FUTURE) {
            Some(CertificateError::ExpiredContext { not_after, .. }) => Ok(system_time(not_after)),
            Some(other) => Err(unfit(rustls::Error::InvalidCertificate(other))),
            None => Err(unfit(rustls::Error::InvalidCertificate(CertificateError::BadEncoding))),
        },
    }
}

/// Later than any time that can stand in a certificate.
const FAR_FUTURE: Duration = Duration::from_secs(1 << 40);

/// Why a certificate does not hold at some time. The library looks at the time before it looks for an issuer, of which it
/// is given none; to read the two dates otherwise would take a parser of our own.
fn outside_of_its_time(certificate: &ParsedCertificate<'_>, now: Duration) -> Option<CertificateError> {
    let now = UnixTime::since_unix_epoch(now);
    match verify_server_cert_signed_by_trust_anchor(certificate, &RootCertStore::empty(), &[], now, &[]) {
        Err(rustls::Error::InvalidCertificate(why)) => Some(why),
        Ok(()) | Err(_) => None,
    }
}

fn system_time(time: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs())
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    let text = std::fs::read(path).map_err(|source| Error::Unreadable { path: path.to_owned(), source })?;
    Ok(Zeroizing::new(text))
}
