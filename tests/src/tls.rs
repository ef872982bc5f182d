//! A TLS terminator in front of a plain HTTP server, for clients that speak nothing else (FAL's Python client).
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
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_util::sync::{CancellationToken, DropGuard};

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
        let mut ca = CertificateParams::new(Vec::<String>::new())?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(DnType::CommonName, "Velro test authority");
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let leaf =
            CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?.signed_by(&key, &ca)?;

        let mut ca_file = tempfile::NamedTempFile::new()?;
        ca_file.write_all(ca.pem().as_bytes())?;
        ca_file.flush()?;

        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
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
