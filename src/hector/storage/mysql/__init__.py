"""MySQL and MariaDB, by asyncmy."""
