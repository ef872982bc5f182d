//! A TLS terminator in front of a plain server, for clients that speak nothing else (FAL's Python client), and what a
//! server needs that speaks TLS itself.
//!
//! Every front has its own certificate authority, made in memory; its certificate is written to a temporary file
//! whose path goes into `SSL_CERT_FILE` or `NODE_EXTRA_CA_CERTS`. Bytes are passed through unchanged: the server
//! behind must be told its public URL or not need one.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A certificate for `localhost` and 127.0.0.1 by an authority that nobody knows, all in PEM.
#[derive(Debug)]
pub struct Identity {
    /// The authority's certificate.
    pub ca: String,
    /// The server's certificate.
    pub certificate: String,
    /// The server's key (PKCS #8).
    pub key: String,
}

impl Identity {
    /// A fresh authority and what it has signed.
    ///
    /// # Errors
    /// If the certificates cannot be made.
    pub fn generate() -> Result<Self> {
        let mut ca = CertificateParams::new(Vec::<String>::new())?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(DnType::CommonName, "Velro test authority");
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let leaf =
            CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?.signed_by(&key, &ca)?;
        Ok(Self {
            ca: ca.pem(),
            certificate: leaf.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// A running terminator; stops when dropped.
#[derive(Debug)]
pub struct TlsFront {
    /// Where it listens; the certificate is valid for this address and for `localhost`.
    pub address: SocketAddr,
    ca_file: tempfile::NamedTempFile,
    _stop: DropGuard,
}

impl TlsFront {
    /// Listens on a free port of 127.0.0.1 and passes every connection to `backend`.
    ///
    /// # Errors
    /// If the certificates cannot be made or the port cannot be bound.
    pub async fn start(backend: SocketAddr) -> Result<Self> {
        let identity = Identity::generate()?;
        let mut ca_file = tempfile::NamedTempFile::new()?;
        ca_file.write_all(identity.ca.as_bytes())?;
        ca_file.flush()?;

        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes())?],
                PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?,
            )
            .context("server certificate")?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((IpAddr::from(Ipv4Addr::LOCALHOST), 0)).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        tokio::spawn(
            stop.clone()
                .run_until_cancelled_owned(accept(listener, acceptor, backend, stop.clone())),
        );
        Ok(Self {
            address,
            ca_file,
            _stop: stop.drop_guard(),
        })
    }

    /// The authority's certificate in PEM.
    #[must_use]
    pub fn ca_file(&self) -> &Path {
        self.ca_file.path()
    }

    /// `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, backend: SocketAddr, stop: CancellationToken) {
    // A failed accept means that one client went away; the next one is independent of it.
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        let acceptor = acceptor.clone();
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            // A broken connection is the client's business: it sees the connection end.
            let _ = pass(client, acceptor, backend).await;
        }));
    }
}

async fn pass(client: TcpStream, acceptor: TlsAcceptor, backend: SocketAddr) -> Result<()> {
    let mut client = acceptor.accept(client).await?;
    let mut server = TcpStream::connect(backend).await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
