//! Puts a file to S3 or gets it back, with the AWS SDK and nothing around it: what a backup's rate is measured beside.
//!
//! `raw_transfer put|get BUCKET KEY FILE`; endpoint, region and credentials come from the standard AWS environment. Parts have
//! 8 MiB and ten of them are under way, as the AWS command line tools do it.

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const PART_BYTES: u64 = 8 << 20;
const UNDER_WAY: usize = 10;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

struct Object {
    client: Client,
    bucket: String,
    key: String,
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [verb, bucket, key, path] = &args[..] else {
        return Err("usage: raw_transfer put|get BUCKET KEY FILE".into());
    };
    let shared = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let config = aws_sdk_s3::config::Builder::from(&shared).force_path_style(true).build();
    let client = Client::from_conf(config);
    let object = Arc::new(Object { client, bucket: bucket.clone(), key: key.clone() });
    match verb.as_str() {
        "put" => put(object, Arc::new(File::open(path)?)).await,
        "get" => get(object, Arc::new(File::create(path)?)).await,
        _ => Err("the first argument is put or get".into()),
    }
}

/// Number, offset and length of each part.
fn parts(length: u64) -> impl Iterator<Item = (i32, u64, usize)> {
    (1..).zip((0..length).step_by(PART_BYTES as usize)).map(move |(number, offset)| {
        let bytes = PART_BYTES.min(length - offset);
        (number, offset, bytes as usize)
    })
}

async fn put(object: Arc<Object>, file: Arc<File>) -> Outcome<()> {
    let length = file.metadata()?.len();
    let create = object.client.create_multipart_upload().bucket(&object.bucket).key(&object.key);
    let upload = create.send().await?.upload_id.unwrap_or_default();
    let room = Arc::new(Semaphore::new(UNDER_WAY));
    let mut tasks: JoinSet<Outcome<CompletedPart>> = JoinSet::new();
    for (number, offset, bytes) in parts(length) {
        let permit = Arc::clone(&room).acquire_owned().await?;
        let (object, file, upload) = (Arc::clone(&object), Arc::clone(&file), upload.clone());
        tasks.spawn(async move {
            let _permit = permit;
            let mut part = vec![0; bytes];
            file.read_exact_at(&mut part, offset)?;
            let request = object.client.upload_part().bucket(&object.bucket).key(&object.key);
            let request = request.upload_id(upload).part_number(number).body(ByteStream::from(part));
            let sent = request.send().await?;
            Ok(CompletedPart::builder()
                .part_number(number)
                .set_e_tag(sent.e_tag)
                .set_checksum_crc32(sent.checksum_crc32)
                .build())
        });
    }
    let mut done = Vec::new();
    while let Some(part) = tasks.join_next().await {
        done.push(part??);
    }
    done.sort_by_key(CompletedPart::part_number);
    let done = CompletedMultipartUpload::builder().set_parts(Some(done)).build();
    let complete = object.client.complete_multipart_upload().bucket(&object.bucket).key(&object.key);
    complete.upload_id(upload).multipart_upload(done).send().await?;
    Ok(())
}

async fn get(object: Arc<Object>, file: Arc<File>) -> Outcome<()> {
    let head = object.client.head_object().bucket(&object.bucket).key(&object.key).send().await?;
    let length = u64::try_from(head.content_length.unwrap_or_default())?;
    let room = Arc::new(Semaphore::new(UNDER_WAY));
    let mut tasks: JoinSet<Outcome<()>> = JoinSet::new();
    for (_, offset, bytes) in parts(length) {
        let permit = Arc::clone(&room).acquire_owned().await?;
        let (object, file) = (Arc::clone(&object), Arc::clone(&file));
        tasks.spawn(async move {
            let _permit = permit;
            let range = format!("bytes={offset}-{}", offset + bytes as u64 - 1);
            let request = object.client.get_object().bucket(&object.bucket).key(&object.key).range(range);
            let part = request.send().await?.body.collect().await?.into_bytes();
            file.write_all_at(&part, offset)?;
            Ok(())
        });
    }
    while let Some(part) = tasks.join_next().await {
        part??;
    }
    file.sync_all()?;
    Ok(())
}
