// The commands on the page are for the place where the page was found.
document.getElementById("origin").textContent = location.origin;
