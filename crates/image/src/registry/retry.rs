//! When to try again, and how long to wait before.

use std::time::Duration;

/// How often and after what pause a failed request is repeated.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// Attempts in all, without progress between them.
    pub attempts: u32,
    /// Pause before the second attempt; doubles each time.
    pub pause: Duration,
    /// Longest pause, also where the registry asks for a longer one.
    pub longest: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 5,
            pause: Duration::from_millis(300),
            longest: Duration::from_secs(30),
        }
    }
}

impl RetryPolicy {
    /// The pause after `failed` attempts, unless that was the last.
    pub(super) fn pause_after(&self, failed: u32, asked: Option<Duration>) -> Option<Duration> {
        if failed >= self.attempts {
            return None;
        }
        let doubled = self
            .pause
            .saturating_mul(1 << failed.saturating_sub(1).min(16));
        let pause = asked.unwrap_or(doubled).min(self.longest);
        // Clients that failed together must not come back together.
        let jitter = getrandom::u32().unwrap_or(0) % 256;
        Some(pause + pause.saturating_mul(jitter) / 1024)
    }
}

/// Statuses after which the same request may succeed.
pub(super) fn is_transient(status: reqwest::StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_are_bounded_and_end() {
        let policy = RetryPolicy {
            attempts: 4,
            pause: Duration::from_millis(100),
            longest: Duration::from_secs(1),
        };
        let pause = |n, asked| policy.pause_after(n, asked);
        assert!(pause(1, None).unwrap() >= Duration::from_millis(100));
        assert!(pause(3, None).unwrap() >= Duration::from_millis(400));
        assert!(pause(1, Some(Duration::from_secs(3600))).unwrap() <= Duration::from_millis(1250));
        assert!(pause(4, None).is_none());
    }
}
