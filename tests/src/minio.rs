//! A MinIO of its own for a test: loopback, a free port, a temporary directory, ended with its value.

use crate::process::{Running, await_some};
use crate::programs;
use crate::server::free_port;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const START_LIMIT: Duration = Duration::from_secs(60);
const USER: &str = "cairn-test-user";
const PASSWORD: &str = "cairn-test-password";

/// The bucket every instance has.
pub const BUCKET: &str = "cairn-test";

/// A running MinIO with the empty bucket [`BUCKET`].
#[derive(Debug)]
pub struct Minio {
    // Ended before its directory goes.
    running: Running,
    address: SocketAddr,
    console: SocketAddr,
    data: tempfile::TempDir,
}

impl Minio {
    /// Starts one and waits until it is ready.
    #[track_caller]
    pub fn start() -> Self {
        let data = tempfile::tempdir().expect("a temporary directory");
        // A directory below MinIO's data is a bucket; this spares the tests an S3 client of their own.
        std::fs::create_dir_all(data.path().join("data").join(BUCKET))
            .expect("the bucket's directory can be made");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let console = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let running = run(data.path(), address, console);
        Self { running, address, console, data }
    }

    /// SIGKILL; what it has acknowledged is in its directory.
    pub fn kill(&mut self) {
        self.running.kill();
    }

    /// Starts it again where it was, after [`Minio::kill`].
    #[track_caller]
    pub fn again(&mut self) {
        self.running = run(self.data.path(), self.address, self.console);
    }

    /// The environment by which the AWS SDK's standard chain finds this instance.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        env(self.address)
    }

    /// `s3://bucket/prefix` for this instance.
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    /// Where it stores its objects, to be searched.
    pub fn data(&self) -> std::path::PathBuf {
        self.data.path().join("data")
    }

    /// What MinIO has written.
    pub fn log(&self) -> String {
        self.running.log()
    }
}

/// Starts the program and waits until it is ready.
#[track_caller]
fn run(home: &Path, address: SocketAddr, console: SocketAddr) -> Running {
    let mut command = Command::new(programs::dependency("minio"));
    command
        .args([
            "server",
            "--quiet",
            "--address",
            &address.to_string(),
            "--console-address",
            &console.to_string(),
        ])
        .arg(home.join("data"))
        .env("MINIO_ROOT_USER", USER)
        .env("MINIO_ROOT_PASSWORD", PASSWORD)
        .env("MINIO_BROWSER", "off")
        .env("MINIO_UPDATE", "off")
        .env("HOME", home);
    let mut running = Running::spawn(&mut command, &home.join("minio.log"));
    let ready = await_some(START_LIMIT, || match running.ended() {
        Some(status) => panic!("MinIO ended with {status}:\n{}", running.log()),
        None => ready(address).then_some(()),
    });
    assert!(ready.is_some(), "MinIO is not ready after {START_LIMIT:?}:\n{}", running.log());
    running
}

/// The environment for a store at `address`, whether something listens there or not.
pub fn env(address: SocketAddr) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ENDPOINT_URL", format!("http://{address}")),
        ("AWS_ACCESS_KEY_ID", USER.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", PASSWORD.to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
    ]
}

fn ready(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /minio/health/ready HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        Ok(reply)
    };
    ask().is_ok_and(|reply| reply.lines().next().is_some_and(|line| line.contains(" 200 ")))
}
