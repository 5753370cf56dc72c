"""From image pairs to patches: finds pairs, splits them by scene, cuts and stores patches."""
