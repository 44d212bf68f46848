//! The directives about what clients are sent: `client-output-buffer-limit` and `notify-keyspace-events`.

use super::Settings;
use super::value::parse_bytes;
use cairn_engine::{Interest, OutputLimit};

/// The classes of clients, in the order in which CONFIG GET shows them.
const CLASSES: [&str; 3] = ["normal", "slave", "pubsub"];

/// Bounds of what may wait for a client, of each class. That of replicas is kept for those who set it: there are none.
pub(crate) type Limits = [OutputLimit; 3];

/// Reads groups of four words: class, hard bytes, soft bytes, soft seconds. Classes that are not named stay as they are.
pub(crate) fn set_output_limits(settings: &mut Settings, words: &[&str]) -> Result<(), String> {
    if !words.len().is_multiple_of(4) {
        return Err("Wrong number of arguments in buffer limit configuration.".into());
    }
    let mut limits = settings.output_limits;
    for group in words.chunks_exact(4) {
        let [class, hard, soft, seconds] = group else { continue };
        let class = class.to_ascii_lowercase();
        let class = if class == "replica" { "slave" } else { &class };
        let Some(at) = CLASSES.iter().position(|known| *known == class) else {
            return Err("Invalid client class specified in buffer limit configuration.".into());
        };
        let (Some(hard_bytes), Some(soft_bytes), Ok(soft_seconds)) =
            (parse_bytes(hard), parse_bytes(soft), seconds.parse())
        else {
            return Err("Error in hard, soft or soft_seconds setting in buffer limit configuration.".into());
        };
        limits[at] = OutputLimit { hard_bytes, soft_bytes, soft_seconds };
    }
    settings.output_limits = limits;
    Ok(())
}

/// All classes, as CONFIG GET shows them.
pub(crate) fn show_output_limits(settings: &Settings) -> String {
    let shown = CLASSES.iter().zip(&settings.output_limits).map(|(class, limit)| {
        format!("{class} {} {} {}", limit.hard_bytes, limit.soft_bytes, limit.soft_seconds)
    });
    shown.collect::<Vec<_>>().join(" ")
}

/// How much memory all clients together may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientMemoryLimit {
    /// So many bytes; 0 for no bound.
    Bytes(u64),
    /// So many hundredths of `maxmemory`.
    Percent(u64),
}

impl Default for ClientMemoryLimit {
    fn default() -> Self {
        Self::Bytes(0)
    }
}

impl ClientMemoryLimit {
    /// In bytes; 0 for no bound.
    pub(crate) fn bytes(self, maxmemory: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => maxmemory / 100 * percent + maxmemory % 100 * percent / 100,
        }
    }
}

/// Reads bytes, or a percentage of `maxmemory`.
pub(crate) fn set_client_memory(settings: &mut Settings, words: &[&str]) -> Result<(), String> {
    let [word] = words else { return Err("wrong number of arguments".into()) };
    settings.client_memory = match word.strip_suffix('%') {
        Some(percent) => {
            let percent = percent.parse().map_err(|_| "argument must be a memory or percent value")?;
            if percent > 100 {
                return Err("percentage argument must be less or equal to 100".into());
            }
            ClientMemoryLimit::Percent(percent)
        }
        None => {
            ClientMemoryLimit::Bytes(parse_bytes(word).ok_or("argument must be a memory or percent value")?)
        }
    };
    Ok(())
}

/// The bound, as CONFIG GET shows it.
pub(crate) fn show_client_memory(settings: &Settings) -> String {
    match settings.client_memory {
        ClientMemoryLimit::Bytes(bytes) => bytes.to_string(),
        ClientMemoryLimit::Percent(percent) => format!("{percent}%"),
    }
}

/// Reads the letters of event classes.
pub(crate) fn set_events(settings: &mut Settings, words: &[&str]) -> Result<(), String> {
    let [letters] = words else { return Err("wrong number of arguments".into()) };
    settings.events =
        Interest::parse_classes(letters).ok_or("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.")?;
    Ok(())
}

/// The letters, as CONFIG GET shows them.
pub(crate) fn show_events(settings: &Settings) -> String {
    settings.events.show_classes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_clients_is_bounded_by_bytes_or_by_a_share_of_all() {
        let settings = Settings::defaults();
        let with = |value: &[u8]| settings.with(&[(b"maxmemory-clients", value), (b"maxmemory", b"1000")]);
        let bytes = |value: &[u8]| with(value).unwrap().client_memory.bytes(1000);
        assert_eq!((bytes(b"2kb"), bytes(b"7%"), bytes(b"0")), (2048, 70, 0));
        assert_eq!(show_client_memory(&with(b"7%").unwrap()), "7%");
        assert!(with(b"101%").is_err() && with(b"x").is_err());
    }

    #[test]
    fn classes_that_are_not_named_keep_their_limits() {
        let settings = Settings::defaults();
        let changed = settings
            .with(&[
                (b"client-output-buffer-limit", b"pubsub 1mb 100k 5 replica 1 2 3"),
                (b"notify-keyspace-events", b"KEA"),
            ])
            .unwrap();
        assert_eq!(show_output_limits(&changed), "normal 0 0 0 slave 1 2 3 pubsub 1048576 100000 5");
        assert_eq!(show_events(&changed), "AKE");
        let refused = |value: &[u8]| settings.with(&[(b"client-output-buffer-limit", value)]).unwrap_err();
        assert!(refused(b"pubsub 1 2").ends_with("Wrong number of arguments in buffer limit configuration."));
        assert!(
            refused(b"master 1 2 3")
                .ends_with("Invalid client class specified in buffer limit configuration.")
        );
        assert!(refused(b"pubsub x 2 3").contains("Error in hard, soft or soft_seconds"));
        assert!(settings.with(&[(b"notify-keyspace-events", b"KEy")]).is_err());
    }
}
