"""What every database server needs: connections, transactions, and what to do when one is broken off."""
