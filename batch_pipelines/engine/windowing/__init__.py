"""Windows of time: which a feed has, when each is launched, and which of their deliveries are late."""
