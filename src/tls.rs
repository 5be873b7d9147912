//! TLS, as it is spoken here: what the server shows its callers and asks of them, and what a database must show us.
//! One implementation, rustls, on one provider of cryptography.

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};

/// HTTP/2, by its name in a handshake.
pub const H2: &[u8] = b"h2";

/// The protocol of PostgreSQL, by its name in a handshake.
const POSTGRESQL: &[u8] = b"postgresql";

/// The one provider of cryptography. Named wherever it is needed, and so never a matter of what the process or its
/// dependencies happen to have chosen.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// A server's side, of PEM texts: its certificate and the chain behind it, the key that belongs to it, and the
/// authorities of client certificates, if callers may show any. They need not, but what they show is verified.
pub fn server(
    chain: &[u8],
    key: &[u8],
    client_authorities: Option<&[u8]>,
) -> Result<ServerConfig, String> {
    let chain = certificates(chain).map_err(|why| format!("cert {why}"))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| "key holds no private key")?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let config = match client_authorities {
        None => config.with_no_client_auth(),
        Some(authorities) => {
            let roots = Arc::new(roots(authorities).map_err(|why| format!("client_ca {why}"))?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
                .allow_unauthenticated()
                .build()
                .map_err(|error| format!("client_ca: {error}"))?;
            config.with_client_cert_verifier(verifier)
        }
    };
    let mut config = config
        .with_single_cert(chain, key)
        .map_err(|error| format!("cert and key do not fit together: {error}"))?;
    config.alpn_protocols = vec![H2.to_vec()];
    // A resumed session would carry a client certificate that was verified long ago, perhaps by an authority that is
    // trusted no more.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// A client's side, towards a database: its certificate must come from one of these authorities and be for the
/// name that we call it by.
pub fn database_client(roots: RootCertStore) -> Result<ClientConfig, String> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![POSTGRESQL.to_vec()];
    Ok(config)
}

/// A client's side, towards a server of this machine that is only asked whether it serves. Its certificate is for the name by
/// which others call it, and is not looked at: no credential is sent, nothing secret is learned, and a server whose
/// certificate has expired is not helped by a restart.
pub fn health_client() -> Result<ClientConfig, String> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider())))
        .with_no_client_auth();
    config.alpn_protocols = vec![H2.to_vec()];
    Ok(config)
}

/// Takes any certificate whose key the peer has.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Authorities, of a PEM text.
pub fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|error| format!("holds no certificate of a CA: {error}"))?;
    }
    Ok(roots)
}

/// The authorities that the operating system trusts.
pub fn system_roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    match found.errors.first() {
        _ if added > 0 => Ok(roots),
        Some(error) => Err(format!("the system's certificates cannot be read: {error}")),
        None => Err("the system has no certificates (install ca-certificates)".to_owned()),
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if certificates.is_empty() => Err("holds no certificate".to_owned()),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("is no PEM file: {error}")),
    }
}
