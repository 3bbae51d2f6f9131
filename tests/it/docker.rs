//! The parts of the suite that use Kafka, on Apache Kafka in a container, where a Docker engine answers.
//!
//! One test starts the broker that `docker-compose.yml` describes (so the settings that users are given are tried as
//! well) and runs this very binary again with `KAFKA_BOOTSTRAP_SERVERS` naming it. It never runs where that variable
//! is set already: the suite is on Apache Kafka then, and so is the child, which therefore cannot start another.
//! Without an engine or an image it says so and passes; the container goes with the test, however that ends.

use std::fs::File;
use std::io::{Read, Seek};
use std::net::{Ipv4Addr, TcpListener};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rand::Rng;
use serde_json::Value;
use testcontainers::core::IntoContainerPort;
use testcontainers::core::client::docker_client_instance;
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt};
use tokio::process::Command;
use tokio::time::timeout;

use bcbridge::kafka::topics::{TopicSpec, Topics};

use crate::broker_lab::{client, unique};

/// The one place that names the image and the broker's settings.
const COMPOSE: &str = include_str!("../../docker-compose.yml");
/// An engine that is there answers a ping at once.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(10);
/// The image has some 150 MB compressed; a line that needs longer would make the suite a test of the line.
const PULL_TIMEOUT: Duration = Duration::from_secs(300);
/// A broker on a busy 2-core machine needs about 20 s, its container and two JVMs included.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// These parts take about 4 minutes alone, and share the processors with the rest of the suite here.
const SUITE_TIMEOUT: Duration = Duration::from_secs(900);
/// The modules that use Kafka; `--skip` leaves out what runs on the built-in broker whatever the variable says. One
/// test at a time: the rest of the suite runs beside them, and some of them measure.
const ARGUMENTS: [&str; 6] =
    ["bridge_", "broker_", "kafka_", "--skip=embedded", "--test-threads=1", "--color=never"];
/// What tests need beyond the compose file: impatient groups and transactions, and small internal topics.
const SETTINGS: [(&str, &str); 6] = [
    ("KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS", "1000"),
    ("KAFKA_GROUP_CONSUMER_MIN_SESSION_TIMEOUT_MS", "1000"),
    ("KAFKA_GROUP_CONSUMER_MIN_HEARTBEAT_INTERVAL_MS", "500"),
    ("KAFKA_TRANSACTION_ABORT_TIMED_OUT_TRANSACTION_CLEANUP_INTERVAL_MS", "1000"),
    ("KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS", "4"),
    ("KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS", "4"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_runs_on_a_container_of_apache_kafka() {
    if std::env::var_os("KAFKA_BOOTSTRAP_SERVERS").is_some() {
        eprintln!("not run: KAFKA_BOOTSTRAP_SERVERS is set, so the suite is on Apache Kafka already");
        return;
    }
    let kafka = Kafka::of_compose();
    if let Err(why) = available(&kafka).await {
        eprintln!("not run: {why}");
        return;
    }
    let port = free_port();
    // Dropping it removes it and its volumes, in a panic as well.
    let container = kafka.request(port).start().await.unwrap();
    let servers = format!("127.0.0.1:{port}");
    until_ready(&container, &servers).await;
    let ran = run_suite(&servers).await;
    container.rm().await.unwrap();
    ran.unwrap_or_else(|why| panic!("on {servers} in a container of {}: {why}", kafka.image));
}

/// The broker of the compose file.
struct Kafka {
    image: String,
    environment: Vec<(String, String)>,
}

impl Kafka {
    fn of_compose() -> Self {
        let compose: Value = serde_saphyr::from_str(COMPOSE).unwrap();
        let service = &compose["services"]["kafka"];
        let default = service["image"].as_str().unwrap();
        let default = default.strip_prefix("${KAFKA_IMAGE:-").unwrap().strip_suffix('}').unwrap();
        let environment = service["environment"].as_object().unwrap().iter();
        Self {
            // As compose does: empty is not set.
            image: std::env::var("KAFKA_IMAGE")
                .ok()
                .filter(|name| !name.is_empty())
                .unwrap_or(default.to_owned()),
            environment: environment
                .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
                .collect(),
        }
    }

    /// As in the compose file, but reached at `127.0.0.1:port`, outside of the container and within.
    fn request(&self, port: u16) -> ContainerRequest<GenericImage> {
        let (name, tag) = match self.image.rsplit_once(':') {
            // A colon before a slash belongs to the registry's address.
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (self.image.as_str(), "latest"),
        };
        // The name by which the compose file's other listener is advertised.
        let mut request =
            GenericImage::new(name, tag).with_hostname("kafka").with_mapped_port(port, 29092.tcp());
        for (name, value) in &self.environment {
            let value = match name.as_str() {
                "KAFKA_ADVERTISED_LISTENERS" => {
                    assert!(value.contains("localhost:29092"), "the compose file advertises {value}");
                    value.replace("localhost:29092", &format!("127.0.0.1:{port}"))
                }
                _ => value.clone(),
            };
            request = request.with_env_var(name, value);
        }
        SETTINGS.iter().fold(request, |request, (name, value)| request.with_env_var(*name, *value))
    }
}

/// Whether containers of the image can be started here, or why not. Fetches the image where it is missing.
async fn available(kafka: &Kafka) -> Result<(), String> {
    let no_engine = |why: String| format!("no Docker engine answers: {why}");
    let engine = docker_client_instance().await.map_err(|error| no_engine(error.to_string()))?;
    match timeout(ENGINE_TIMEOUT, engine.ping()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(no_engine(error.to_string())),
        Err(_) => return Err(no_engine(format!("silent for {ENGINE_TIMEOUT:?}"))),
    }
    if engine.inspect_image(&kafka.image).await.is_ok() {
        return Ok(());
    }
    let image = &kafka.image;
    match timeout(PULL_TIMEOUT, kafka.request(0).pull_image()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("the image {image} is not here and cannot be pulled: {error}")),
        Err(_) => {
            Err(format!("the image {image} is not here and pulling it took more than {PULL_TIMEOUT:?}"))
        }
    }
}

/// A port that is free now and still will be when the engine takes it: below the ports that systems hand out for
/// port 0 and for outgoing connections, of which the tests beside this one use many.
fn free_port() -> u16 {
    let mut random = rand::rng();
    (0..100)
        .map(|_| random.random_range(20_000..32_000))
        .find(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok())
        .expect("one of a hundred ports is free")
}

/// Waits until a topic can be made: the controller, the broker and the advertised address work then.
async fn until_ready(container: &ContainerAsync<GenericImage>, servers: &str) {
    let begun = Instant::now();
    let topics = Topics::new(&client(servers)).unwrap();
    let spec = TopicSpec { name: unique("ready"), partitions: 1, replication_factor: 1, config: Vec::new() };
    loop {
        let Err(error) = topics.ensure(std::slice::from_ref(&spec)).await else { return };
        let running = container.is_running().await.unwrap();
        if !running || begun.elapsed() > START_TIMEOUT {
            let state = if running { "is silent" } else { "has ended" };
            let (out, err) =
                (container.stdout_to_vec().await.unwrap(), container.stderr_to_vec().await.unwrap());
            eprintln!("{}{}", String::from_utf8_lossy(&out), String::from_utf8_lossy(&err));
            panic!(
                "after {:?}, Kafka in the container {state}: {error}; its log stands above",
                begun.elapsed()
            );
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Runs the parts that use Kafka, in a process of their own, and shows their output when they fail.
async fn run_suite(servers: &str) -> Result<(), String> {
    // A file, so that there is something to show of a run that had to be ended.
    let mut output = tempfile::tempfile().unwrap();
    let same = |file: &File| Stdio::from(file.try_clone().unwrap());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(ARGUMENTS)
        .env("KAFKA_BOOTSTRAP_SERVERS", servers)
        .stdin(Stdio::null())
        .stdout(same(&output))
        .stderr(same(&output))
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let ended = timeout(SUITE_TIMEOUT, child.wait()).await;
    let mut text = Vec::new();
    output.rewind().unwrap();
    output.read_to_end(&mut text).unwrap();
    let text = String::from_utf8_lossy(&text);
    // A run of no tests would pass as well.
    let passed = text.lines().find_map(|line| line.strip_prefix("test result: ok. "));
    match (ended, passed) {
        (Ok(Ok(status)), Some(counts)) if status.success() && !counts.starts_with("0 ") => {
            eprintln!("on Apache Kafka in a container: {counts}");
            Ok(())
        }
        (ended, _) => {
            eprintln!("{text}");
            let how = match ended {
                Ok(Ok(status)) => status.to_string(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("not done after {SUITE_TIMEOUT:?}"),
            };
            Err(format!("the suite failed ({how}); its output stands above"))
        }
    }
}
