//! TLS for clients that speak bytes: a port in the clear, and for each connection to it one by TLS behind it.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;

use tokio::io::{AsyncWriteExt as _, copy, sink, split};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use super::certificates::Authority;

/// What believes an authority, and asks for nothing else but this protocol; for none if it is empty.
pub(crate) fn trusting(ca: &Authority, protocol: &str) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.certificate.as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = [protocol.as_bytes().to_vec()].into_iter().filter(|name| !name.is_empty()).collect();
    config
}

/// Opens a port that leads to an address by TLS, where this protocol is agreed on.
pub(crate) fn open(to: SocketAddr, ca: &Authority, protocol: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let connector = TlsConnector::from(Arc::new(trusting(ca, protocol)));
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, to, connector.clone(), protocol));
            }
        });
    });
    address
}

/// Passes bytes on both ways, each until it ends: an answer comes through although nothing more is taken.
async fn pass(client: TcpStream, to: SocketAddr, connector: TlsConnector, protocol: &str) -> Option<()> {
    client.set_nodelay(true).ok()?;
    let socket = TcpStream::connect(to).await.ok()?;
    socket.set_nodelay(true).ok()?;
    let server = connector.connect("localhost".try_into().ok()?, socket).await.ok()?;
    assert_eq!(server.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
    let ((mut client_in, mut client_out), (mut server_in, mut server_out)) = (client.into_split(), split(server));
    let request = async {
        let _ = copy(&mut client_in, &mut server_out).await;
        let _ = server_out.shutdown().await;
        // Nobody is reset for what he still sends.
        copy(&mut client_in, &mut sink()).await
    };
    let answer = async {
        let _ = copy(&mut server_in, &mut client_out).await;
        client_out.shutdown().await
    };
    let _ = tokio::join!(request, answer);
    Some(())
}
