"""What the daemon shows of itself to those who operate it: metrics, and traces."""

from coordd.telemetry.telemetry import Telemetry, Uninstalled

__all__ = ["Telemetry", "Uninstalled"]
