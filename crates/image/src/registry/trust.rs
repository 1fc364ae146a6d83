//! Which certificates are believed (decision 0024): those that an authority vouches for, those that are themselves among
//! the trusted ones, and any from a registry that is spoken to unverified.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

/// A file of certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the certificates in {}", .path.display())]
pub struct CertificatesError {
    path: PathBuf,
    #[source]
    source: FileError,
}

#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error(transparent)]
    Read(#[from] io::Error),
    #[error("there is no certificate in PEM format in it")]
    Empty,
    #[error("it is damaged")]
    Damaged,
}

/// Authorities by which a registry's certificate is judged, with the certificates as they stand in their files.
#[derive(Debug)]
pub(super) struct Authorities {
    anchors: RootCertStore,
    certificates: Vec<CertificateDer<'static>>,
}

impl Authorities {
    /// Those of the system, or of `SSL_CERT_FILE` and `SSL_CERT_DIR`. What cannot be read of them vouches for nobody.
    pub(super) fn of_system() -> Self {
        let mut all = Self::none();
        for certificate in rustls_native_certs::load_native_certs().certs {
            let _ = all.add(certificate);
        }
        all
    }

    /// And those that stand in `HOST/*.crt` below `certs_d`, Docker's directory.
    ///
    /// # Errors
    /// A file that has no certificate: who put it there would look for the fault elsewhere.
    pub(super) fn and_of_registry(
        mut self,
        certs_d: &Path,
        host: &str,
    ) -> Result<Self, CertificatesError> {
        let Ok(entries) = fs::read_dir(certs_d.join(host)) else {
            return Ok(self);
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "crt"));
        for path in paths {
            self.add_file(&path)
                .map_err(|source| CertificatesError { path, source })?;
        }
        Ok(self)
    }

    fn none() -> Self {
        Self {
            anchors: RootCertStore::empty(),
            certificates: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }

    fn add_file(&mut self, path: &Path) -> Result<(), FileError> {
        let pem = fs::read(path)?;
        let mut found = false;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|_| FileError::Damaged)?;
            self.add(certificate).map_err(|_| FileError::Damaged)?;
            found = true;
        }
        if found { Ok(()) } else { Err(FileError::Empty) }
    }

    fn add(&mut self, certificate: CertificateDer<'static>) -> Result<(), Error> {
        self.anchors.add(certificate.clone())?;
        self.certificates.push(certificate);
        Ok(())
    }
}

/// How to speak TLS. Whatever certificate `unverified` shows is taken; a token service or a store that it refers to is
/// not meant by that.
pub(super) fn client_config(
    authorities: Authorities,
    unverified: Option<ServerName<'static>>,
) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let trust = Trust::new(authorities, unverified, &provider)?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(trust))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The name that a certificate of `host` (`NAME[:PORT]`, `[ADDRESS][:PORT]`) is for.
pub(super) fn server_name(host: &str) -> Option<ServerName<'static>> {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        None => host.split(':').next().unwrap_or(host),
    };
    ServerName::try_from(name.to_owned()).ok()
}

#[derive(Debug)]
struct Trust {
    /// Absent where no authority is known here.
    chains: Option<Arc<WebPkiServerVerifier>>,
    certificates: Vec<CertificateDer<'static>>,
    unverified: Option<ServerName<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Trust {
    fn new(
        authorities: Authorities,
        unverified: Option<ServerName<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let anchors = Arc::new(authorities.anchors);
        let chains = match anchors.is_empty() {
            true => None,
            false => Some(
                WebPkiServerVerifier::builder_with_provider(anchors, Arc::clone(provider))
                    .build()
                    .map_err(|error| Error::General(error.to_string()))?,
            ),
        };
        Ok(Self {
            chains,
            certificates: authorities.certificates,
            unverified,
            algorithms: provider.signature_verification_algorithms,
        })
    }

    /// Whether a signature by this certificate's key cannot be checked, nor need be. What cannot even be parsed gets past
    /// [`Trust::verify_server_cert`] only when its server is unverified.
    fn is_beyond_checking(&self, certificate: &CertificateDer<'_>) -> bool {
        self.unverified.is_some() && ParsedCertificate::try_from(certificate).is_err()
    }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.unverified.as_ref() == Some(server_name) {
            return Ok(ServerCertVerified::assertion());
        }
        let Some(chains) = &self.chains else {
            return Err(CertificateError::UnknownIssuer.into());
        };
        match chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        {
            Err(error) if is_about_the_issuer(&error) && self.certificates.contains(end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.is_beyond_checking(cert) {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => verify_tls12_signature(message, cert, dss, &self.algorithms),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.is_beyond_checking(cert) {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => verify_tls13_signature(message, cert, dss, &self.algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whether all that is wrong is who issued the certificate. webpki looks at the validity period before it comes to
/// either of these.
fn is_about_the_issuer(error: &Error) -> bool {
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => true,
        Error::InvalidCertificate(CertificateError::Other(other)) => {
            is_authority_as_server(other.0.as_ref())
        }
        _ => false,
    }
}

/// Whether a server showed the certificate of an authority (`CA:TRUE`) as its own.
pub(super) fn is_authority_as_server(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(
        error.downcast_ref::<webpki::Error>(),
        Some(webpki::Error::CaUsedAsEndEntity)
    )
}

#[cfg(test)]
mod tests;
