<?php // Publish a message: php publish.php CHANNEL TEXT [ADMIN_URL]
[, $channel, $text] = $argv;
$curl = curl_init($argv[3] ?? 'http://127.0.0.1:22281/');
curl_setopt_array($curl, [
    CURLOPT_POSTFIELDS => json_encode(['type' => 'notification', 'text' => $text, 'subscribers' => [$channel]]),
    CURLOPT_HTTPHEADER => ['Authorization: Bearer ' . getenv('APHLICT_SECRET')], // the server's admin.secret, if it has one
    CURLOPT_RETURNTRANSFER => true,
    CURLOPT_TIMEOUT => 2, // seconds
]);
$receipt = curl_exec($curl);
if (curl_getinfo($curl, CURLINFO_RESPONSE_CODE) !== 200) {
    fwrite(STDERR, 'publishing failed: ' . ($receipt ?: curl_error($curl)) . "\n");
    exit(1);
}
echo $receipt, "\n";
