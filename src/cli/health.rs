//! `health`: whether the server of a deployment serves, asked on its own machine, for containers and scripts.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tower::service_fn;

use crate::{config::Config, tls};

pub(super) async fn run(config: PathBuf, seconds: u64) -> Result<()> {
    let config = Config::load(&config).map_err(|why| anyhow!(why))?;
    let address = reachable(config.server.listen)?;
    let asked = ask(address, config.server.tls.is_some());
    let asked = timeout(Duration::from_secs(seconds), asked).await;
    let status = asked
        .with_context(|| format!("no answer from {address} within {seconds} s"))?
        .with_context(|| format!("no answer from {address}"))?;
    if status != ServingStatus::Serving {
        bail!("the server on {address} says {}", status.as_str_name());
    }
    Ok(())
}

/// Where a server that listens there is reached from its own machine.
fn reachable(listen: SocketAddr) -> Result<SocketAddr> {
    if listen.port() == 0 {
        bail!("server.listen = {listen} leaves the port open: nobody can tell which it is");
    }
    let ip = match listen.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Ok(SocketAddr::new(ip, listen.port()))
}

async fn ask(address: SocketAddr, tls: bool) -> Result<ServingStatus> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    let channel = if tls { over_tls(endpoint, address).await? } else { endpoint.connect().await? };
    let request = HealthCheckRequest::default();
    Ok(HealthClient::new(channel).check(request).await?.into_inner().status())
}

async fn over_tls(endpoint: Endpoint, address: SocketAddr) -> Result<Channel> {
    let config = tls::health_client().map_err(|why| anyhow!(why))?;
    let tls = TlsConnector::from(Arc::new(config));
    let connect = service_fn(move |_: Uri| {
        let tls = tls.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::IpAddress(address.ip().into());
            Ok::<_, io::Error>(TokioIo::new(tls.connect(name, stream).await?))
        }
    });
    Ok(endpoint.connect_with_connector(connect).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_listens_everywhere_is_asked_on_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:50051", "127.0.0.1:50051"),
            ("[::]:50051", "[::1]:50051"),
            ("10.1.2.3:7", "10.1.2.3:7"),
        ] {
            let listen = listen.parse().expect("an address");
            assert_eq!(reachable(listen).expect("known").to_string(), asked);
        }
        assert!(reachable(SocketAddr::from(([0, 0, 0, 0], 0))).is_err());
    }
}
